//! `remuda nanny`: keeps engines of this machine running.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::{NannyConfig, NannySettings, Speech, run_nanny};
use remuda_proto::message::restart::Restart;

use super::cluster::{end_with_this, this_program};
use crate::args::cluster::EngineKind;
use crate::args::nanny::NannyArgs;
use crate::connect::{self, FileFor, Source};
use crate::failure::{Failure, Outcome};
use crate::{engine_command, logging, python};

/// What stands in an engine's command for the connection file.
const FILE: &str = "{file}";

pub(crate) fn run(args: &NannyArgs) -> Outcome {
    let profile = args.place.profile();
    profile.create()?;
    logging::start(&args.log, &profile, "ipnanny", &[])?;
    remuda_net::limits::raise_open_files();
    if args.speak && args.connect.connect.as_ref().is_some_and(|from| from == "-") {
        return Err(Failure::usage("stdin cannot hold both the connection and words: `--connect -` and `--speak`")
            .hint("name a file"));
    }
    let source = connect::source(&args.connect)?;
    let is_named = source != Source::Profile;
    let file = FileFor::new(source, &profile.engine_file())?;
    // A command may go to another folder first.
    let engine_file = std::path::absolute(file.path())?;
    let mut program = program(args, &engine_file)?;
    if is_named && args.is_of_ours() {
        program.push(format!("--file={}", engine_file.display()).into());
    }
    program.extend(args.engine_arg.iter().map(OsString::from));
    let settings = NannySettings {
        config: NannyConfig {
            engines: args.n.get(),
            restart: Restart { limit: args.restart_limit, ..Restart::new(args.restart) },
            patience: args.patience.map(Duration::from_secs_f64),
        },
        program,
        takes_ident: args.is_of_ours(),
        tag: tag(args)?,
        profile,
        engine_file,
        speech: match &args.line {
            Some(at) => Speech::Line { at: at.clone(), patience: Duration::from_secs_f64(args.line_patience) },
            None if args.speak => Speech::Pipe,
            None => Speech::People,
        },
    };
    file.during(|| Ok(ExitCode::from(run_nanny(&settings)?)))
}

/// The tag, with the rank if it is asked for.
fn tag(args: &NannyArgs) -> Result<Option<String>, Failure> {
    let Some(tag) = args.tag.as_ref().filter(|_| args.rank) else { return Ok(args.tag.clone()) };
    if let Some(rank) = RANKS.iter().find_map(|name| std::env::var(name).ok()) {
        return Ok(Some(format!("{tag}-{rank}")));
    }
    let what = format!("`--rank`: none of {} is in the environment", RANKS.join(", "));
    Err(Failure::usage(what).hint("have `mpiexec` start it"))
}

/// Where implementations of MPI say which process this is.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"];

/// What is run as an engine, without the user's own arguments for it.
fn program(args: &NannyArgs, engine_file: &Path) -> Result<Vec<OsString>, Failure> {
    let filled = |word: &String| OsString::from(word.replace(FILE, &engine_file.to_string_lossy()));
    if !args.command.is_empty() {
        engine_command::check(&args.command)?;
        return Ok(args.command.iter().map(filled).collect());
    }
    match args.engines.clone().unwrap_or(EngineKind::Native) {
        EngineKind::Command(words) => {
            engine_command::check(&words)?;
            Ok(words.iter().map(filled).collect())
        }
        EngineKind::Native => {
            // The nanny says how much runs at once, unless the user says something else of the engines.
            let mut engine = vec![this_program()?, "engine".into(), "--slots".into(), "1".into()];
            engine.extend(end_with_this());
            Ok(engine)
        }
        EngineKind::Python | EngineKind::PythonBy(_) => python::engine_command(args.python.as_deref()),
    }
}
