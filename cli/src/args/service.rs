//! `remuda service`: programs that are kept running.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;
use super::process::ControllerPlaceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Start a service, of a definition with `"process_type": "service"`, and print the id of its task.
    Start(StartArgs),
    /// List the services that run or are to run, and the last of those that have ended.
    List(ListArgs),
    /// Stop services: they are not started again.
    Stop(StopArgs),
    /// Print what a service wrote, as far as its engines have it.
    Logs(LogsArgs),
}

/// Arguments of `remuda service start`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '{\"name\": \"web\", \"exec\": \"python3\", \"argv\": [\"-m\", \"http.server\"], \"process_type\": \"service\",
         \"restart\": {\"policy\": \"always\"}}' | remuda process create -
  remuda service start web
  remuda service logs -f web")]
pub(crate) struct StartArgs {
    /// Id or name of its definition
    #[arg(value_name = "ID|NAME")]
    pub(crate) which: String,
    /// File with what the program reads each time that it is started; `-`: stdin [default: nothing]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Start it even if it runs already: then there are several
    #[arg(long)]
    pub(crate) another: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda service list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// List all on record that have ended, not only the last of each name that does not run
    #[arg(long)]
    pub(crate) all: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda service stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Their names, the ids of their definitions, or ids of their tasks (or as much of one as is enough)
    #[arg(value_name = "ID|NAME", required = true)]
    pub(crate) which: Vec<String>,
    /// Stop all of a name, if there are several
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda service logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Its name, the id of its definition, or the id of its task (or as much of it as is enough)
    #[arg(value_name = "ID|NAME")]
    pub(crate) which: String,
    /// Go on as it writes, until it ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what it wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only what it wrote to stderr
    #[arg(long)]
    pub(crate) stderr: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}
