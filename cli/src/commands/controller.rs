//! `remuda controller`: runs one until it is told to end.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use remuda_cluster::{Controller, ControllerConfig, HeartConfig, StoreKind, TaskConfig};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::controller::ControllerArgs;
use crate::failure::{Failure, Outcome};
use crate::logging;

pub(crate) fn run(args: &ControllerArgs) -> Outcome {
    let config = resolve(args)?;
    let profile = config.profile.clone();
    logging::start(&args.log, &profile, "ipcontroller")?;
    // Before any thread is started, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if let Some(parent) = args.parent {
        remuda_cluster::end_with_parent(parent)?;
    }
    let open_files = remuda_net::limits::raise_open_files();

    let controller = Controller::start(&config)?;
    let stopper = controller.stopper();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!(signal, "ending");
            stopper.stop();
        }
    })?;
    let connection = controller.connection();
    tracing::info!(
        scheme = connection.task_scheme,
        hwm = args.hwm,
        open_files,
        "listening at {}, hub at port {}; connection files in {}",
        connection.common.interface,
        connection.common.registration,
        profile.security().display(),
    );
    controller.wait();
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Flags over environment over defaults.
fn resolve(args: &ControllerArgs) -> Result<ControllerConfig, Failure> {
    let profile = args.place.profile();
    if args.ip.is_empty() {
        return Err(Failure::usage("`--ip` is empty").hint("give an address, or `--ip=*` for all"));
    }
    let defaults = ControllerConfig::new(profile);
    let ports = (args.port != 0).then_some(args.port).into_iter().chain(args.ports.0.iter().copied()).collect();
    Ok(ControllerConfig {
        transport: args.transport.clone(),
        ip: args.ip.clone(),
        location: args.location.clone().unwrap_or_else(|| defaults.location.clone()),
        ports,
        key: std::env::var("IPP_SESSION_KEY").ok().filter(|key| !key.is_empty()),
        heart: HeartConfig { period: Duration::from_millis(args.ping), max_misses: args.max_heart_misses },
        task: TaskConfig {
            scheme: args.scheme,
            hwm: args.hwm,
            seed: u64::from_le_bytes(remuda_net::random_bytes()[..8].try_into().expect("8 of 16 bytes")),
            ..TaskConfig::default()
        },
        store: if args.nodb { StoreKind::None } else { StoreKind::default() },
        reuse: args.reuse,
        ..defaults
    })
}
