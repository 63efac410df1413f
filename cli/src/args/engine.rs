//! `remuda engine`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use remuda_proto::message::needs::{Amount, check_name};

use super::{ConfigArgs, ConnectArgs, LogArgs, PlaceArgs, pause, seconds, size};

/// Arguments of `remuda engine`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "ipengine's own spellings work too (--IPEngine.timeout=20): see --help-all."
)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// Seconds to wait for the connection file to appear
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) wait_for_file: f64,
    /// Id to ask for; the controller may give another
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<u32>,
    /// Its uuid, in place of a random one [env: `REMUDA_ENGINE_IDENT`]
    #[arg(long, value_name = "TEXT")]
    pub(crate) ident: Option<String>,
    /// Host name of the controller, in place of that in the connection file
    #[arg(long, value_name = "HOST")]
    pub(crate) location: Option<String>,
    /// Heartbeats of the controller that may be missing in a row before the engine ends; 0: any number
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) max_missed_pings: u32,
    /// Seconds to go on trying where the engine would end: when no controller answers at its start, or when it was lost
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = pause)]
    pub(crate) patience: f64,
    /// Programs to run at once, each on one core unless it asks for more; the cores of this machine unless told otherwise
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<NonZeroU32>,
    /// Something that tasks take while they run, and how much of it there is: `gpu=2`
    #[arg(long, value_name = "NAME=N", value_parser = resource)]
    pub(crate) resource: Vec<(String, Amount)>,
    /// Words of your own that describe the engine, for tasks that ask for them
    #[arg(long, value_name = "WORD")]
    pub(crate) label: Vec<String>,
    /// Most bytes in files, of what programs write that is too much for a reply (`500M`, `2G`)
    #[arg(long, value_name = "SIZE", default_value = "32G", value_parser = size)]
    pub(crate) spool_limit: usize,
    /// Folder for such files, and for files of programs; that of the system for temporary files unless told otherwise
    #[arg(long, value_name = "DIR")]
    pub(crate) spool_dir: Option<PathBuf>,
    /// Run Python functions and code, as `ipengine` does, with this interpreter, and nothing else; without PYTHON, the first of
    /// `python3` and `python` that has ipyparallel [env: `REMUDA_PYTHON`]
    #[arg(long, value_name = "PYTHON", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["null", "slots"])]
    pub(crate) python: Option<String>,
    /// Most bytes of a Python task's stdout, and of its stderr, that are told (`500M`, `2G`)
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(crate) output_limit: usize,
    /// Finish every task at once without running it, to measure what the rest costs
    #[arg(long)]
    pub(crate) null: bool,
    /// End when the process with this id does, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

/// `NAME=N`
fn resource(text: &str) -> Result<(String, Amount), String> {
    let (name, amount) = text.split_once('=').ok_or("give a name and an amount: `gpu=2`")?;
    check_name(name).map_err(|error| error.to_string())?;
    let amount = Amount::parse(name, amount).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), amount))
}
