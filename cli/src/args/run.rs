//! `remuda run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{VenueArgs, WorkArgs, size};

/// Arguments of `remuda run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "remuda run [OPTIONS] [--] PROGRAM [ARG...]",
    after_help = "\
Exit code: that of the program; 128 and the signal that ended it; 124 after --timeout; 126 and 127 if it
cannot be run or is not there; 1 if the task was lost.

Examples:
  remuda run -- make -C project test
  remuda run --needs gpu=1 --timeout 3600 -- ./train --epochs 10
  remuda run -i -- sort -u < names.txt > sorted.txt"
)]
pub(crate) struct RunArgs {
    /// Give the program what this command reads on stdin, once that has ended; else it reads nothing
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give it a file of the engine's machine on stdin
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    pub(crate) stdin_file: Option<String>,
    /// Folder to run in, on the engine's machine [default: this one]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// A variable to set (`NAME=VALUE`), or to leave out (`NAME`)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Give it no variables but those of `--env`
    #[arg(long)]
    pub(crate) clear_env: bool,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Fail at once if no engine that is there could ever run it
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// A word for the task's record
    #[arg(long, value_name = "WORD")]
    pub(crate) label: Option<String>,
    /// Seconds of CPU time that each of its processes may use
    #[arg(long, value_name = "S", help_heading = "Limits")]
    pub(crate) max_cpu: Option<u64>,
    /// Address space that each of its processes may have (`500M`, `2G`)
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub(crate) max_memory: Option<usize>,
    /// Files that each of its processes may have open
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_files: Option<u64>,
    /// Size of the files that it writes (`500M`, `2G`)
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub(crate) max_file_size: Option<usize>,
    #[command(flatten)]
    pub(crate) venue: VenueArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}
