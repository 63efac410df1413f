//! `remuda doctor`.

use clap::Args;

use super::{Format, PlaceArgs, seconds};

/// Arguments of `remuda doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How many engines are wanted [default: those of the profile's `[cluster]` or, without any, the cores]
    #[arg(short = 'n', long = "engines", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) engines: Option<u32>,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}
