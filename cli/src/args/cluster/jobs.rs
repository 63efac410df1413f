//! The options of `remuda cluster start` for engines in jobs.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use remuda_cluster::launch::batch::System;
use remuda_cluster::line::PATIENCE;

use crate::args::{seconds, switch};

/// What starts the engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// This command, or ssh.
    Local,
    /// A batch system.
    Batch(System),
    /// `mpiexec`.
    Mpi,
}

/// Jobs of a batch system, or ranks of MPI.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engines in jobs")]
pub(crate) struct JobArgs {
    /// What starts the engines: local, slurm, openpbs, torque (or pbs), sge, lsf, htcondor, or mpi [default: local]
    #[arg(long, value_name = "LAUNCHER", value_parser = launcher)]
    pub(crate) launcher: Option<Launcher>,
    /// The queue; with Slurm the partition
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// Whom it is accounted to: an account or a project, as the system has it
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,
    /// The quality of service, where the system has that
    #[arg(long, value_name = "NAME")]
    pub(crate) qos: Option<String>,
    /// How long a job may run, as the system writes it: `1-00:00:00`, `24:00:00`, minutes, …
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// Option for the system, as in a directive of its scripts; again for each further one
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) job_option: Vec<String>,
    /// A template for the jobs' script [default: that of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// How many engines each job has, or each element of an array [default: 1; without an array, all]
    #[arg(long, value_name = "K")]
    pub(crate) engines_per_job: Option<NonZeroU32>,
    /// Jobs that are the same become one array job
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, value_name = "BOOL", overrides_with = "no_array")]
    pub(crate) array: bool,
    /// Jobs that are the same stay jobs of their own
    #[arg(long, overrides_with = "array")]
    pub(crate) no_array: bool,
    /// Port at which this machine is called by what runs in the jobs [default: any that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) line_port: Option<u16>,
    /// Seconds for which a job may be cut off from this command before it ends its engines
    #[arg(long, value_name = "S", default_value_t = PATIENCE.as_secs_f64(), value_parser = seconds)]
    pub(crate) line_patience: f64,
    /// What `mpiexec` is called, with `--launcher mpi`
    #[arg(long, value_name = "PROGRAM", default_value = "mpiexec")]
    pub(crate) mpiexec: String,
    /// Argument for mpiexec; again for each further one
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) mpi_arg: Vec<String>,
}

/// A launcher by its name.
fn launcher(text: &str) -> Result<Launcher, String> {
    named(text).ok_or_else(|| {
        let systems = System::ALL.map(System::key).join(", ");
        format!("use local, {systems}, pbs or mpi; machines that are reached over SSH are named by `--host`")
    })
}

/// The launcher of that name here or in stock, where it may be that of a class without its end.
pub(super) fn named(text: &str) -> Option<Launcher> {
    let name = text.to_ascii_lowercase();
    match &*name {
        "local" => Some(Launcher::Local),
        "mpi" => Some(Launcher::Mpi),
        name => System::named(name).map(Launcher::Batch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_the_names_of_their_systems() {
        assert_eq!(launcher("Slurm"), Ok(Launcher::Batch(System::Slurm)));
        assert_eq!(launcher("pbs"), Ok(Launcher::Batch(System::Torque)));
        assert_eq!((launcher("mpi"), launcher("local")), (Ok(Launcher::Mpi), Ok(Launcher::Local)));
        let error = launcher("cron").unwrap_err();
        assert!(error.contains("htcondor") && error.contains("--host"), "{error}");
    }
}
