//! `remuda cluster`.

use clap::{Args, Subcommand, ValueEnum};

use super::{PlaceArgs, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start a controller and engines, and stop them on Ctrl-C.
    Start(StartArgs),
    /// Stop the cluster that `remuda cluster start` started.
    Stop(StopArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// How many engines [default: the cores]
    #[arg(short = 'n', long = "n", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) n: Option<u16>,
    /// What kind of engines
    #[arg(long, value_enum, default_value_t = EngineKind::Native)]
    pub(crate) engines: EngineKind,
    /// Python that runs the engines, with `--engines python` [env: `REMUDA_PYTHON`] [default: python3]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<String>,
    /// Return as soon as the engines are there, and leave the cluster running
    #[arg(long)]
    pub(crate) daemonize: bool,
    /// Seconds to wait for the engines
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Options for the controller, after `--`
    #[arg(last = true, value_name = "CONTROLLER OPTION")]
    pub(crate) controller: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    /// `remuda engine`: programs
    Native,
    /// ipyparallel's engine: Python functions
    Python,
}
