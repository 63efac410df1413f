//! `remuda debug`: questions to a controller that runs.

use clap::{Args, Subcommand};

use super::{PlaceArgs, ReachArgs, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Tell what happened to a task, and why it is where it is.
    #[command(visible_alias = "why")]
    Story(StoryArgs),
    /// Print the controller's state as JSON: set-up, limits, engines, queues, records, refused messages.
    Dump(DumpArgs),
}

/// Where to ask, and how long to wait.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

/// Arguments of `remuda debug story`.
#[derive(Debug, Args)]
pub(crate) struct StoryArgs {
    /// Ids of tasks (`msg_ids` of a result), or how they begin if that is enough to tell them apart
    #[arg(value_name = "MSG ID", required = true)]
    pub(crate) msg_ids: Vec<String>,
    /// Print JSON, one object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `remuda debug dump`.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Tell of so many tasks without a reply, too
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub(crate) tasks: u16,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}
