//! Batch systems: nannies as jobs of Slurm, PBS, Grid Engine, LSF and HTCondor.
//!
//! A job's script is made of a template ([`render`]), and given to the system's own program on its stdin. How jobs stand is read of
//! what the system's other programs print: [`Batch`] runs these, and a module for each system understands them.

mod htcondor;
mod lsf;
mod pbs;
mod sge;
mod slurm;
mod state;
mod system;
mod template;

pub use state::{Job, JobEnd, JobState, JobStatus};
pub use system::{Commands, System};
pub use template::{JobSpec, TemplateError, render};

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::run::{Ran, RunError, run};
use state::{Seen, statuses};

/// How long a program of a batch system may take: a busy one may not answer for long.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// A batch system that does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// One of its programs failed.
    #[error("{system}: {}", match doing { Doing::Submit => "the job was not accepted", Doing::Poll => "cannot ask how jobs stand", Doing::Cancel => "cannot cancel a job" })]
    Program {
        /// The system's name.
        system: &'static str,
        /// What it was to do.
        doing: Doing,
        /// What it says.
        source: RunError,
    },
    /// There is no job id in its answer.
    #[error("{system}: there is no job id in what `{program}` answered: `{answer}`")]
    NoId {
        /// The system's name.
        system: &'static str,
        /// The program.
        program: String,
        /// What it printed.
        answer: String,
    },
}

/// What a batch system is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// To run a job.
    Submit,
    /// How jobs stand.
    Poll,
    /// To end a job.
    Cancel,
}

/// How engines are put in jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many engines each job has, or each element of an array; `None`: one job has all of them, an element of an array one.
    pub engines_per_job: Option<u32>,
    /// Whether jobs that are the same become one array.
    pub array: bool,
}

impl Shape {
    /// The jobs for so many engines: how many engines in each, and how many elements it has (0: it is no array). What is left
    /// over makes one smaller job.
    ///
    /// ```
    /// use remuda_cluster::launch::batch::Shape;
    /// assert_eq!(Shape { engines_per_job: Some(4), array: true }.jobs(10), [(4, 2), (2, 0)]);
    /// assert_eq!(Shape::default().jobs(10), [(10, 0)]);
    /// ```
    pub fn jobs(&self, engines: u32) -> Vec<(u32, u32)> {
        let each = self.engines_per_job.unwrap_or(if self.array { 1 } else { engines }).clamp(1, engines.max(1));
        let (whole, rest) = (engines / each, engines % each);
        let mut jobs = match (self.array, whole) {
            (true, 2..) => vec![(each, whole)],
            _ => vec![(each, 0); whole as usize],
        };
        jobs.extend((rest > 0).then_some((rest, 0)));
        jobs
    }
}

/// A batch system, by its programs.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which.
    pub system: System,
    /// Its programs.
    pub commands: Commands,
    /// How long each of them may take.
    pub timeout: Duration,
}

impl Batch {
    /// A system with its programs as they are found in the PATH.
    pub fn new(system: System) -> Self {
        Self { system, commands: system.commands(), timeout: COMMAND_TIMEOUT }
    }

    /// Submits a job by its script, an array of so many elements (0: none).
    ///
    /// # Errors
    /// When the system refuses it, in its own words; or when it cannot be asked.
    pub fn submit(&self, script: &str, elements: u32) -> Result<Job, BatchError> {
        let ran = self.run(Doing::Submit, &self.commands.submit, self.system.submit_arguments(), script)?;
        let program = ran.program.clone();
        let answer = ran.success().map_err(self.error(Doing::Submit))?;
        let id = match self.system {
            System::Slurm => slurm::job_id(&answer),
            System::OpenPbs | System::Torque => pbs::job_id(&answer),
            System::Sge => sge::job_id(&answer),
            System::Lsf => lsf::job_id(&answer),
            System::HtCondor => htcondor::job_id(&answer),
        };
        match id {
            Some(id) => Ok(Job { id, elements }),
            None => Err(BatchError::NoId { system: self.system.name(), program, answer: answer.trim().to_owned() }),
        }
    }

    /// How jobs stand: a status for each job, or for each element of its array, in order. A job that the system does not know
    /// (any more) is [`JobEnd::Forgotten`].
    ///
    /// # Errors
    /// When the system cannot be asked. That says nothing of the jobs.
    pub fn poll(&self, jobs: &[Job]) -> Result<Vec<JobStatus>, BatchError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut seen = match self.system {
            System::Slurm => slurm::list(self, jobs)?,
            System::OpenPbs | System::Torque => pbs::list(self, jobs)?,
            System::Sge => sge::list(self, jobs)?,
            System::Lsf => lsf::list(self, jobs)?,
            System::HtCondor => htcondor::list(self, jobs)?,
        };
        let first = self.system.first_element();
        let lost: Vec<Job> = jobs.iter().filter(|job| is_lost(job, first, &seen)).cloned().collect();
        if !lost.is_empty() && !self.commands.history.is_empty() {
            let past = match self.system {
                System::Slurm => slurm::history(self, &lost),
                System::OpenPbs => pbs::history(self, &lost),
                System::Sge => sge::history(self, &lost),
                System::HtCondor => htcondor::history(self, &lost),
                System::Torque | System::Lsf => Vec::new(),
            };
            // What is listed now is newer than what is on record.
            seen.splice(0..0, past);
        }
        Ok(statuses(jobs, first, seen))
    }

    /// Ends a job, with all elements of its array or one of them, whether it waits or runs. One that has ended is none to complain of.
    ///
    /// # Errors
    /// When the system refuses that, or cannot be asked.
    pub fn cancel(&self, job: &Job, element: Option<u32>) -> Result<(), BatchError> {
        let words = self.system.cancel_arguments(job, element);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = self.run(Doing::Cancel, &self.commands.cancel, &words, "")?;
        if self.system.gone().iter().any(|words| ran.said(words)) {
            return Ok(());
        }
        ran.success().map(drop).map_err(self.error(Doing::Cancel))
    }

    /// What ipyparallel writes of such a job in its cluster file (`cluster/launcher.py: BatchSystemLauncher`, `to_dict`), and
    /// what it needs to cancel it.
    pub fn to_stock(&self, job: &Job, spec: &JobSpec) -> Value {
        let n = spec.engines * job.elements.max(1);
        json!({
            "job_id": job.id, "n": n, "state": "running", "queue": spec.queue, "profile_dir": spec.profile_dir,
            "cluster_id": spec.cluster_id, "output_file": spec.output, "batch_template": "",
            "namespace": {},
        })
    }

    /// The path of what an element of a job printed; see [`System::output_file`].
    pub fn output_file(&self, spec: &JobSpec, job: &Job, element: Option<u32>) -> std::path::PathBuf {
        self.system.output_file(Path::new(&spec.output), job, element)
    }

    /// Runs one of the programs.
    fn run(&self, doing: Doing, program: &[String], arguments: &[&str], input: &str) -> Result<Ran, BatchError> {
        let mut words = program.iter().map(String::as_str).chain(arguments.iter().copied());
        let mut command = Command::new(words.next().unwrap_or_default());
        // What is read here is English.
        command.args(words).env("LC_ALL", "C");
        run(&mut command, input, self.timeout).map_err(self.error(doing))
    }

    fn error(&self, doing: Doing) -> impl Fn(RunError) -> BatchError {
        let system = self.system.name();
        move |source| BatchError::Program { system, doing, source }
    }
}

/// Whether a listing lacks a job, or elements of its array.
fn is_lost(job: &Job, first: u32, seen: &[Seen]) -> bool {
    let listed = statuses(
        std::slice::from_ref(job),
        first,
        seen.iter().filter(|seen| seen.number == job.number()).cloned().collect(),
    );
    listed.iter().any(|status| status.state == JobState::Ended(JobEnd::Forgotten))
}

/// The ids of jobs, with something between them.
fn ids(jobs: &[Job], between: &str) -> String {
    jobs.iter().map(|job| &*job.id).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_put_in_jobs_as_the_shape_says() {
        let jobs = |engines_per_job, array, engines| Shape { engines_per_job, array }.jobs(engines);
        assert_eq!(jobs(None, false, 8), [(8, 0)]);
        assert_eq!(jobs(Some(4), false, 10), [(4, 0), (4, 0), (2, 0)]);
        assert_eq!(jobs(None, true, 8), [(1, 8)]);
        assert_eq!(jobs(Some(4), true, 4), [(4, 0)], "some systems have no arrays of one");
        assert_eq!(jobs(Some(9), true, 4), [(4, 0)]);
        assert_eq!(jobs(Some(0), false, 2), [(1, 0), (1, 0)]);
        assert_eq!(jobs(None, true, 0), []);
    }
}
