//! `remuda nanny`.

use std::num::NonZeroU32;

use clap::Args;
use remuda_cluster::line::{LineAddress, PATIENCE};
use remuda_proto::message::restart::RestartPolicy;

use super::cluster::{EngineKind, engine_kind, restart_policy};
use super::{ConnectArgs, LogArgs, PlaceArgs, seconds};

/// Arguments of `remuda nanny`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct NannyArgs {
    /// How many engines
    #[arg(short = 'n', long = "n", value_name = "N", default_value = "1")]
    pub(crate) n: NonZeroU32,
    /// What kind of engines: native (programs), python (Python functions), or a command that runs one [default: native]
    #[arg(long, value_name = "KIND", value_parser = engine_kind, conflicts_with = "command")]
    pub(crate) engines: Option<EngineKind>,
    /// Python that runs the engines, with `--engines python` [env: `REMUDA_PYTHON`] [default: python3]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<String>,
    /// Argument for each engine; again for each further one
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) engine_arg: Vec<String>,
    /// When an engine that has ended is started again: never, on-failure or always
    #[arg(long, value_name = "WHEN", default_value = "on-failure", value_parser = restart_policy)]
    pub(crate) restart: RestartPolicy,
    /// How often an engine is started again at most [default: without end]
    #[arg(long, value_name = "N")]
    pub(crate) restart_limit: Option<u32>,
    /// Seconds for which the controller may be silent before all engines are ended [default: for ever]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) patience: Option<f64>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Read words from stdin and write to stdout what happens, a line of JSON each; the end of stdin ends the engines
    #[arg(long, hide = true)]
    pub(crate) speak: bool,
    /// Where a cluster's supervisor listens, which is told what happens and says what to do: `[HOST:]PORT`, without a host
    /// that of the controller
    #[arg(long, value_name = "ADDRESS", requires = "tag", conflicts_with = "speak")]
    pub(crate) line: Option<LineAddress>,
    /// Seconds without a line to the supervisor after which the engines are ended
    #[arg(long, value_name = "S", default_value_t = PATIENCE.as_secs_f64(), value_parser = seconds)]
    pub(crate) line_patience: f64,
    /// The name under which the supervisor expects this nanny; the uuids of the engines begin with it, too
    #[arg(long, value_name = "NAME")]
    pub(crate) tag: Option<String>,
    /// The number of this process among those that `mpiexec` started stands behind the tag
    #[arg(long, hide = true)]
    pub(crate) rank: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// The engines' program and its arguments, after `--`. Its uuid is to be that in `REMUDA_ENGINE_IDENT`, or where `{ident}`
    /// stands; `{file}` stands for the connection file
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

impl NannyArgs {
    /// Whether the engines are programs whose options are known.
    pub(crate) fn is_of_ours(&self) -> bool {
        self.command.is_empty() && !matches!(self.engines, Some(EngineKind::Command(_)))
    }
}
