//! `remuda map`.

mod halt;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

pub(crate) use halt::{Halt, Tally, What};

use super::{VenueArgs, WorkArgs, size};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(
    override_usage = "remuda map [OPTIONS] [--] PROGRAM [ARG...] [::: VALUE...] [:::: FILE...]",
    after_help = "\
Without `:::` and `::::` the values are read from stdin, one a line. Several groups are combined, each
value with each; `:::+` and `::::+` go in step with the group before.

In the program and its arguments:
  {}    the value            {/}   its last part          {#}       the number of the job
  {.}   without extension    {//}  its folder             {2} {2.}  of the second group, and so on
                             {/.}  its last part without extension
Without any of these the value comes last.

Examples:
  remuda map -n 4 -- sha256sum {} ::: *.iso
  remuda map -- convert {} {.}.png ::: *.svg
  find . -name '*.log' | remuda map -k -- xz {}
  remuda map --joblog run.log --resume -- ./simulate {1} {2} ::: 1 2 3 ::: fast slow
  remuda map --shell -- 'zcat {} | wc -l' ::: *.gz"
)]
pub(crate) struct MapArgs {
    /// How many run at once: in a cluster of its own, or tasks in a running one [default: the cores]
    #[arg(short = 'n', short_alias = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) jobs: Option<u16>,
    /// Print what the programs write in the order of the values, not as they end
    #[arg(short, long)]
    pub(crate) keep_order: bool,
    /// Begin each line with the values that it is for, and a tab
    #[arg(long)]
    pub(crate) tag: bool,
    /// How often a program that fails is tried again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// When to stop early: `now,fail=1` stops what runs, `soon,fail=1` lets it end; also `success=N`, `done=N`, and `fail=30%`
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub(crate) halt: Halt,
    /// Write a line for each job that has ended: when, how long, and how
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,
    /// Leave out jobs that have ended, by the job log of an earlier run
    #[arg(long, requires = "joblog", conflicts_with = "resume_failed")]
    pub(crate) resume: bool,
    /// Leave out jobs that exited with 0, by the job log of an earlier run
    #[arg(long, requires = "joblog")]
    pub(crate) resume_failed: bool,
    /// Also write what each program writes to files in this folder: `1/VALUE/stdout` and `stderr`
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
    /// Print the commands, and run none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show progress, which is the default on a terminal
    #[arg(long, overrides_with = "no_bar")]
    pub(crate) bar: bool,
    /// Show no progress
    #[arg(long)]
    pub(crate) no_bar: bool,
    /// Read values from this file too, one a line; `-`: stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) arg_file: Vec<PathBuf>,
    /// Values in files end with a NUL, not with a line
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// Values for each job, of one group
    #[arg(short = 'N', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_args: Option<u32>,
    /// Take the command as a line for `sh -c`; values are quoted
    #[arg(long)]
    pub(crate) shell: bool,
    /// Cut stdin into blocks of whole lines, and give each to a program on its stdin
    #[arg(long)]
    pub(crate) pipe: bool,
    /// Size of a block: bytes, or 64k, 1M, 2G
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size, requires = "pipe")]
    pub(crate) block: usize,
    #[command(flatten)]
    pub(crate) venue: VenueArgs,
    /// The program and its arguments, then `:::` and the values
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}
