//! From the options of `remuda cluster start` to engines in jobs.

use std::fs;
use std::sync::Arc;

use remuda_cluster::launch::batch::{Batch, JobSpec, Shape};
use remuda_net::Profile;
use remuda_proto::message::restart::{Restart, RestartPolicy};

use super::jobs::JobPlan;
use super::runner::{Mpi, Runner};
use super::{supervise, this_program};
use crate::args::cluster::{EngineKind, Launcher, StartArgs};
use crate::failure::Failure;
use crate::python;

/// How the names of files begin that jobs print to.
const OUTPUT: &str = "ipjob";

/// What starts the engines.
pub(super) fn launcher(args: &StartArgs) -> Launcher {
    let by_kind = match &args.engine.engines {
        Some(EngineKind::PythonBy(launcher)) => Some(*launcher),
        _ => None,
    };
    args.jobs.launcher.or(by_kind).unwrap_or(Launcher::Local)
}

/// When what has ended is started again.
pub(super) fn restart(args: &StartArgs, is_stock: bool) -> Result<Restart, Failure> {
    let asked = args.engine.restart;
    // A job of MPI cannot get a rank back. As stock does, `ipcluster` lets the dead be dead.
    let is_mpi = launcher(args) == Launcher::Mpi;
    if let Some(policy) = asked.filter(|policy| is_mpi && *policy != RestartPolicy::Never) {
        let what = format!("`--restart={}`: MPI ends all of a job with one of its ranks", policy.name());
        return Err(Failure::usage(what).hint("leave it out; `remuda cluster engines add` starts another job"));
    }
    let default = if is_stock || is_mpi { RestartPolicy::Never } else { RestartPolicy::OnFailure };
    Ok(Restart { limit: args.engine.restart_limit, ..Restart::new(asked.unwrap_or(default)) })
}

/// Whether this is the name of a file that a job of this cluster printed to.
pub(super) fn is_output_of(file: &str, cluster_id: &str) -> bool {
    let dash = if cluster_id.is_empty() { "" } else { "-" };
    let rest = file.strip_prefix(&format!("{OUTPUT}-{cluster_id}{dash}"));
    rest.is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

/// Engines in jobs.
pub(super) fn in_jobs(
    args: &StartArgs,
    kind: &EngineKind,
    restart: Restart,
    profile: &Profile,
) -> Result<supervise::Where, Failure> {
    let jobs = &args.jobs;
    if !args.host.is_empty() {
        let hint = "give `--launcher=local` for machines that are reached over SSH";
        return Err(Failure::usage("`--host` and `--launcher` are for different engines").hint(hint));
    }
    let runner = match launcher(args) {
        Launcher::Batch(system) => {
            let template = match &jobs.template {
                None => system.template().to_owned(),
                Some(file) => fs::read_to_string(file).map_err(|error| {
                    let what = format!("cannot read the template `{}`", file.display());
                    Failure::new(anyhow::Error::new(error).context(what)).code(2)
                })?,
            };
            Runner::Batch(Batch::new(system), template)
        }
        Launcher::Mpi => {
            let program = [jobs.mpiexec.clone()].into_iter().chain(jobs.mpi_arg.iter().cloned()).collect();
            Runner::Mpi(Mpi { program, running: Arc::default() })
        }
        Launcher::Local => return Err(Failure::usage("`--launcher=local` starts no jobs")),
    };
    let is_mpi = matches!(runner, Runner::Mpi(_));
    let shape = Shape {
        engines_per_job: jobs.engines_per_job.map(std::num::NonZeroU32::get),
        array: is_mpi || jobs.array && !jobs.no_array,
    };
    let this = this_program()?.to_string_lossy().into_owned();
    let mut program = vec![this, "nanny".to_owned(), format!("--profile-dir={}", profile.dir().display())];
    program.push(format!("--cluster-id={}", profile.cluster_id()));
    // Whatever the environment invites to.
    program.push(format!("--file={}", profile.engine_file().display()));
    if kind.is_python() {
        let python = python::find(args.engine.python.as_deref())?;
        program.push(format!("--python={}", python.to_string_lossy()));
    }
    program.push(format!("--line-patience={}", jobs.line_patience));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let spec = JobSpec {
        name: "remuda".to_owned(),
        program,
        arguments: super::nanny_arguments(&args.engine, kind, restart),
        queue: text(&jobs.queue),
        account: text(&jobs.account),
        qos: text(&jobs.qos),
        time: text(&jobs.time),
        options: jobs.job_option.join("\n"),
        output: profile.log_file(OUTPUT).with_extension("").display().to_string(),
        profile_dir: profile.dir().display().to_string(),
        cluster_id: profile.cluster_id().to_owned(),
        ..JobSpec::default()
    };
    runner.check(&JobSpec { tag: "tag".to_owned(), engines: 1, ..spec.clone() }).map_err(Failure::usage)?;
    let plan = JobPlan { runner, shape, spec, line_port: jobs.line_port };
    Ok(supervise::Where::Jobs(Box::new(plan), shape))
}

#[cfg(test)]
mod tests {
    use super::is_output_of;

    #[test]
    fn the_files_of_a_clusters_jobs_are_known() {
        assert!(is_output_of("ipjob-3753.1-17_3.log", "") && is_output_of("ipjob-a-3753.1.log-3", "a"));
        assert!(!is_output_of("ipjob-a-3753.1-17.log", "") && !is_output_of("ipjob-3753.1-17.log", "a"));
        assert!(!is_output_of("ipengine-3753.log", ""));
    }
}
