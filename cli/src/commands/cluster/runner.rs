//! What submits jobs, says how they stand and ends them: a batch system, or this machine's `mpiexec`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_cluster::jobs::Arrays;
use remuda_cluster::launch::batch::{Batch, Job, JobEnd, JobSpec, JobState, JobStatus, Shape, render};
use remuda_cluster::{End, launch};

/// Runs jobs. All of it is blocking.
#[derive(Clone)]
pub(super) enum Runner {
    /// A batch system, with the template of its scripts.
    Batch(Batch, String),
    Mpi(Mpi),
}

/// `mpiexec` and its first arguments.
#[derive(Clone)]
pub(super) struct Mpi {
    pub(super) program: Vec<String>,
    /// Those that run, by their id.
    pub(super) running: Arc<Mutex<BTreeMap<String, Child>>>,
}

impl Runner {
    /// Its name in settings.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Batch(batch, _) => batch.system.key(),
            Self::Mpi(_) => "mpi",
        }
    }

    pub(super) fn arrays(&self, shape: Shape) -> Arrays {
        match self {
            Self::Batch(..) if shape.array => Arrays::Several,
            Self::Batch(..) => Arrays::Never,
            Self::Mpi(_) => Arrays::Always,
        }
    }

    pub(super) fn first_element(&self) -> u32 {
        match self {
            Self::Batch(batch, _) => batch.system.first_element(),
            Self::Mpi(_) => 0,
        }
    }

    /// What the script comes to, or why there is none.
    pub(super) fn check(&self, spec: &JobSpec) -> Result<(), String> {
        match self {
            Self::Batch(batch, template) => {
                render(batch.system, template, spec).map(drop).map_err(|error| error.to_string())
            }
            Self::Mpi(_) => Ok(()),
        }
    }

    pub(super) fn submit(&self, spec: &JobSpec) -> Result<Job, String> {
        match self {
            Self::Batch(batch, template) => {
                let script = render(batch.system, template, spec).map_err(|error| error.to_string())?;
                batch.submit(&script, spec.elements).map_err(|error| with_cause(&error))
            }
            Self::Mpi(mpi) => mpi.submit(spec),
        }
    }

    pub(super) fn poll(&self, jobs: &[Job]) -> Result<Vec<JobStatus>, String> {
        match self {
            Self::Batch(batch, _) => batch.poll(jobs).map_err(|error| with_cause(&error)),
            Self::Mpi(mpi) => Ok(jobs.iter().flat_map(|job| mpi.poll(job)).collect()),
        }
    }

    pub(super) fn cancel(&self, job: &Job, element: Option<u32>) -> Result<(), String> {
        match self {
            Self::Batch(batch, _) => batch.cancel(job, element).map_err(|error| with_cause(&error)),
            Self::Mpi(mpi) => {
                mpi.cancel(job);
                Ok(())
            }
        }
    }

    /// A job's id with that of an element, for people.
    pub(super) fn name(&self, job: &Job, element: Option<u32>) -> String {
        match (self, element) {
            (Self::Batch(batch, _), element) => batch.system.element_id(job, element),
            (Self::Mpi(_), Some(rank)) => format!("{} rank {rank}", job.id),
            (Self::Mpi(_), None) => job.id.clone(),
        }
    }

    /// The file with what a job prints.
    pub(super) fn output(&self, output: &Path, job: &Job, element: Option<u32>) -> PathBuf {
        match self {
            Self::Batch(batch, _) => batch.system.output_file(output, job, element),
            Self::Mpi(_) => log_of(output),
        }
    }
}

/// All ranks print to one file.
fn log_of(output: &Path) -> PathBuf {
    PathBuf::from(format!("{}.log", output.display()))
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

impl Mpi {
    fn submit(&self, spec: &JobSpec) -> Result<Job, String> {
        let (program, before) = self.program.split_first().ok_or("no mpiexec is named")?;
        let log = log_of(Path::new(&spec.output));
        let wrong = |error| format!("cannot write the log `{}`: {error}", log.display());
        let output = File::create(&log).map_err(wrong)?;
        let errors = output.try_clone().map_err(wrong)?;
        let child = Command::new(program)
            .args(before)
            .args(["-n", &spec.elements.to_string()])
            .args(&spec.program)
            .arg(format!("--tag={}", spec.tag))
            .arg("--rank")
            .args(&spec.arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot run `{program}`: {error}; name another with `--mpiexec`"))?;
        let job = Job { id: child.id().to_string(), elements: spec.elements };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id.clone(), child);
        Ok(job)
    }

    fn poll(&self, job: &Job) -> Vec<JobStatus> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match running.get_mut(&job.id).map(Child::try_wait) {
            Some(Ok(None)) => JobState::Running { host: String::new() },
            Some(Ok(Some(status))) => {
                let End { ok, how, .. } = End::of(status, Path::new(""));
                let reason = format!("mpiexec {how}");
                JobState::Ended(if ok { JobEnd::Done } else { JobEnd::Failed { code: None, reason } })
            }
            Some(Err(_)) | None => JobState::Ended(JobEnd::Forgotten),
        };
        let ranks = 0..job.elements;
        ranks.map(|rank| JobStatus { job: job.id.clone(), element: Some(rank), state: state.clone() }).collect()
    }

    /// Asks it to end, with all ranks.
    fn cancel(&self, job: &Job) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = running.get_mut(&job.id)
            && matches!(child.try_wait(), Ok(None))
        {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
    }
}

/// Cancels jobs of a cluster whose supervisor is gone. Returns how many were cancelled, or what the system says.
pub(super) fn cancel_all(launcher: &str, jobs: &[Job]) -> Result<usize, String> {
    let Some(system) = launch::batch::System::named(launcher) else { return Ok(0) };
    let batch = Batch::new(system);
    for job in jobs {
        batch.cancel(job, None).map_err(|error| with_cause(&error))?;
    }
    Ok(jobs.len())
}
