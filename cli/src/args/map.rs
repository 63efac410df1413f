//! `remuda map`.

use std::ffi::OsString;

use clap::Args;

use super::{PlaceArgs, seconds};

#[derive(Debug, Args)]
#[command(
    override_usage = "remuda map [OPTIONS] [--] PROGRAM [ARG...] ::: VALUE...",
    after_help = "\
`{}` in an argument stands for the value; without any `{}` the value comes last.

Examples:
  remuda map -n 4 -- sha256sum {} ::: *.iso
  remuda map -- convert {} {}.png ::: *.svg"
)]
pub(crate) struct MapArgs {
    /// How many run at once: engines of a cluster of its own, or tasks in a running one [default: the cores]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) jobs: Option<u16>,
    /// How often a program that fails is tried again, on another engine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// Start a cluster for the time being even if the profile has a running one
    #[arg(long)]
    pub(crate) embedded: bool,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The program, its arguments, `:::`, and the values
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) command: Vec<OsString>,
}
