//! `remuda nanny`: keeps engines of this machine running.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::{NannyConfig, NannySettings, Speech, run_nanny};
use remuda_proto::message::restart::Restart;

use super::cluster::{end_with_this, this_program};
use crate::args::cluster::EngineKind;
use crate::args::nanny::NannyArgs;
use crate::failure::{Failure, Outcome};
use crate::{logging, python};

pub(crate) fn run(args: &NannyArgs) -> Outcome {
    let profile = args.place.profile();
    profile.create()?;
    logging::start(&args.log, &profile, "ipnanny", &[])?;
    remuda_net::limits::raise_open_files();
    let file = args.file.clone();
    let engine_file = file.clone().unwrap_or_else(|| profile.engine_file());
    let mut program = program(args)?;
    if let Some(file) = file.filter(|_| args.command.is_empty()) {
        program.push(format!("--file={}", file.display()).into());
    }
    program.extend(args.engine_arg.iter().map(OsString::from));
    let settings = NannySettings {
        config: NannyConfig {
            engines: args.n.get(),
            restart: Restart { limit: args.restart_limit, ..Restart::new(args.restart) },
            patience: args.patience.map(Duration::from_secs_f64),
        },
        program,
        takes_ident: args.command.is_empty(),
        tag: tag(args)?,
        profile,
        engine_file,
        speech: match &args.line {
            Some(at) => Speech::Line { at: at.clone(), patience: Duration::from_secs_f64(args.line_patience) },
            None if args.speak => Speech::Pipe,
            None => Speech::People,
        },
    };
    Ok(ExitCode::from(run_nanny(&settings)?))
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
fn program(args: &NannyArgs) -> Result<Vec<OsString>, Failure> {
    if !args.command.is_empty() {
        return Ok(args.command.iter().map(OsString::from).collect());
    }
    match args.engines.unwrap_or(EngineKind::Native) {
        EngineKind::Native => {
            // The nanny says how much runs at once, unless the user says something else of the engines.
            let mut engine = vec![this_program()?, "engine".into(), "--slots".into(), "1".into()];
            engine.extend(end_with_this());
            Ok(engine)
        }
        EngineKind::Python | EngineKind::PythonBy(_) => python::engine_command(args.python.as_deref()),
    }
}
