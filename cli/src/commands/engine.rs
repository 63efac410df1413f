//! `remuda engine`: runs one until it is told to end.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use remuda_engine::{Ending, Engine, RunError};
use remuda_net::connection_file::{self, FileError};
use remuda_net::profile::variable;
use remuda_proto::{EngineConnection, EngineId, EngineUuid};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::engine::EngineArgs;
use crate::connect::{self, Source};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::python;

/// How often the connection file is looked for.
const POLL: Duration = Duration::from_millis(20);

/// `ipengine`: what users of it expect is an engine that runs Python, so it is the stock one, with the same arguments.
pub(crate) fn stock(args: &[OsString]) -> Outcome {
    use std::os::unix::process::CommandExt;
    let command = python::engine_command(None)?;
    let error = std::process::Command::new(&command[0]).args(&command[1..]).args(args).exec();
    // It comes back only when it fails.
    let what = format!("cannot run `{}`", command[0].to_string_lossy());
    Err(Failure::new(anyhow::Error::new(error).context(what)))
}

pub(crate) fn run(args: &EngineArgs, notes: &[String]) -> Outcome {
    let profile = args.place.profile();
    logging::start(&args.log, &profile, "ipengine", notes)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if let Some(parent) = args.parent {
        remuda_cluster::end_with_parent(parent)?;
    }
    remuda_net::limits::raise_open_files();

    let source = connect::source(&args.connect)?;
    // An invitation does not change; a file may, and is found again from another folder.
    let file = match &source {
        Source::Given(_) => None,
        Source::File(path) => Some(std::path::absolute(path)?),
        Source::Profile => Some(std::path::absolute(profile.engine_file())?),
    };
    let at_location = |mut connection: EngineConnection| {
        if let Some(location) = &args.location {
            connection.common.location.clone_from(location);
        }
        connection
    };
    let connection = at_location(connection(args, source)?);
    args.config.enter_work_dir()?;
    let ident =
        args.ident.clone().or_else(|| std::env::var(variable::ENGINE_IDENT).ok().filter(|ident| !ident.is_empty()));
    let mut builder = Engine::builder()
        .id(args.id.map(EngineId))
        .uuid(ident.as_deref().map(EngineUuid::from))
        .max_missed_pings(args.max_missed_pings)
        .patience(Duration::from_secs_f64(args.patience))
        .null(args.null)
        .registration_timeout(Duration::from_secs_f64(args.timeout));
    for label in &args.label {
        builder = builder.label(label);
    }
    let cores = || thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    builder = builder
        .slots(args.slots.map_or_else(cores, NonZeroU32::get))
        .spool_limit(args.spool_limit as u64)
        .folder(args.spool_dir.clone());
    for (name, amount) in &args.resource {
        builder = builder.resource(name, *amount);
    }
    if let Some(python) = &args.python {
        let python = python::find(Some(&**python).filter(|python| !python.is_empty()))?;
        builder = builder.python(python).output_limit(args.output_limit as u64);
    }
    let engine = builder.build()?;
    let (stop, is_python) = (engine.stop_handle(), args.python.is_some());
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // As in a stock engine, where it is meant for the task (`engine/app.py: _signal_sigint`).
            if signal == SIGINT && is_python && (stop.interrupt() || !std::io::stdin().is_terminal()) {
                tracing::info!("SIGINT interrupts the task, if one runs: SIGTERM ends the engine");
                continue;
            }
            tracing::info!(signal, "ending");
            stop.stop();
        }
    })?;
    let start = format!("remuda controller{}", args.place.options());
    let mut look = || connection_file::read_engine(file.as_ref()?).ok().map(at_location);
    match engine.run_following(&connection, &mut look) {
        Ok(ending) if ending.is_clean() => {
            tracing::info!("ended: {ending}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(ending @ Ending::ControllerLost { .. }) => Err(Failure::new(anyhow::anyhow!("{ending}"))
            .hint(format!("start a controller with `{start}`, then the engine again"))),
        Ok(ending) => Err(Failure::new(anyhow::anyhow!("{ending}"))),
        Err(error @ (RunError::NothingThere { .. } | RunError::NoAnswer { .. })) => {
            let hint = file.map_or_else(
                || {
                    "ask for another invitation where the controller runs, by `remuda cluster invite`, and see that no \
                     firewall is between"
                        .to_owned()
                },
                |file| {
                    format!("remove `{}`, and start a controller with `{start}`, which writes it anew", file.display())
                },
            );
            Err(Failure::new(error).hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}

/// The engine's connection, the file of which may still be to come.
fn connection(args: &EngineArgs, source: Source) -> Result<EngineConnection, Failure> {
    let path = match source {
        Source::Given(connection) => return Ok(*connection),
        Source::File(path) => path,
        Source::Profile => args.place.profile().engine_file(),
    };
    let (start, patience) = (Instant::now(), Duration::from_secs_f64(args.wait_for_file));
    loop {
        match connection_file::read_engine(&path) {
            Ok(connection) => return Ok(connection),
            Err(FileError::Missing { .. }) if start.elapsed() < patience => thread::sleep(POLL),
            Err(error @ FileError::Missing { .. }) => {
                return Err(Failure::new(error).hint(format!(
                    "start a controller with `remuda controller{}`, or name another file with `--connect`",
                    args.place.options()
                )));
            }
            Err(error) => {
                let hint = "start the controller again, which writes it anew, or name another file with `--connect`";
                return Err(Failure::new(error).hint(hint));
            }
        }
    }
}
