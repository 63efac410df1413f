//! `remuda engine`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigArgs, LogArgs, PlaceArgs, seconds};

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
    /// Connection file, if it is not the profile's
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// Seconds to wait for the connection file to appear
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) wait_for_file: f64,
    /// Id to ask for; the controller may give another
    #[arg(long, value_name = "N")]
    pub(crate) id: Option<u32>,
    /// Its uuid, in place of a random one
    #[arg(long, value_name = "TEXT")]
    pub(crate) ident: Option<String>,
    /// Host name of the controller, in place of that in the connection file
    #[arg(long, value_name = "HOST")]
    pub(crate) location: Option<String>,
    /// Heartbeats of the controller that may be missing in a row before the engine ends; 0: any number
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) max_missed_pings: u32,
    /// Words of your own that describe the engine
    #[arg(long, value_name = "WORD")]
    pub(crate) label: Vec<String>,
    /// Finish every task at once without running it, to measure what the rest costs
    #[arg(long)]
    pub(crate) null: bool,
    /// End when the process with this id does, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}
