//! `remuda process`: process definitions.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{PlaceArgs, ReachArgs, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum ProcessCommand {
    /// Keep a new definition, and print its id.
    Create(CreateArgs),
    /// List the definitions.
    List(ListArgs),
    /// Show a definition.
    Show(ShowArgs),
    /// Put another definition in the place of one.
    Update(UpdateArgs),
    /// Delete definitions.
    Delete(DeleteArgs),
    /// Run the program of a definition once, and print its result; the exit code is the program's.
    Run(RunArgs),
    /// Say all that is wrong with a definition, without a controller; exit code 1 if anything is.
    Check(CheckArgs),
}

/// Where the controller is.
#[derive(Debug, Args)]
pub(crate) struct ControllerPlaceArgs {
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

/// Arguments of `remuda process create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '{\"name\": \"tr\", \"exec\": \"tr\", \"argv\": [\"-d\", \"x\"]}' | remuda process create -
  remuda process create convert.json")]
pub(crate) struct CreateArgs {
    /// File with the definition, a map in JSON; `-`: stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// No more than N of them; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) limit: u64,
    /// Leave out the first N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: u64,
    /// Print JSON, one document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Its id or its name
    #[arg(value_name = "ID|NAME")]
    pub(crate) which: String,
    /// Print JSON, one document
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Its id or its name
    #[arg(value_name = "ID|NAME")]
    pub(crate) which: String,
    /// File with the new definition; `-`: stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Their ids or names
    #[arg(value_name = "ID|NAME", required = true)]
    pub(crate) which: Vec<String>,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Its id or its name
    #[arg(value_name = "ID|NAME")]
    pub(crate) which: String,
    /// File with what the program reads; `-`: stdin [default: nothing]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// File for the program's result [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) controller: ControllerPlaceArgs,
}

/// Arguments of `remuda process check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// File with the definition, a map in JSON; `-`: stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
