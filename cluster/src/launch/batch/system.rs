//! What is peculiar to each batch system.

use std::path::{Path, PathBuf};

use super::Job;

/// A batch system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// Slurm.
    Slurm,
    /// OpenPBS and PBS Professional.
    OpenPbs,
    /// Torque: the PBS that ipyparallel's templates are for.
    Torque,
    /// Grid Engine: Sun's, Univa's and its children.
    Sge,
    /// IBM Spectrum LSF.
    Lsf,
    /// HTCondor.
    HtCondor,
}

/// The programs of a batch system, each with its first arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// Takes a job's script on stdin.
    pub submit: Vec<String>,
    /// Lists jobs.
    pub list: Vec<String>,
    /// Shows all that is known of a job; Slurm only.
    pub details: Vec<String>,
    /// Shows jobs that have ended and that the listing lacks; empty: nothing does.
    pub history: Vec<String>,
    /// Ends jobs.
    pub cancel: Vec<String>,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Slurm, Self::OpenPbs, Self::Torque, Self::Sge, Self::Lsf, Self::HtCondor];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slurm => "Slurm",
            Self::OpenPbs => "OpenPBS",
            Self::Torque => "Torque",
            Self::Sge => "Grid Engine",
            Self::Lsf => "LSF",
            Self::HtCondor => "HTCondor",
        }
    }

    /// Its name in settings.
    pub fn key(self) -> &'static str {
        match self {
            Self::Slurm => "slurm",
            Self::OpenPbs => "openpbs",
            Self::Torque => "torque",
            Self::Sge => "sge",
            Self::Lsf => "lsf",
            Self::HtCondor => "htcondor",
        }
    }

    /// The name by which ipyparallel's cluster file knows its launcher.
    pub fn stock_class(self) -> &'static str {
        match self {
            Self::OpenPbs | Self::Torque => "pbs",
            other => other.key(),
        }
    }

    /// The system of that name in settings. `pbs` is Torque, as with ipyparallel.
    pub fn named(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.key() == key).or_else(|| (key == "pbs").then_some(Self::Torque))
    }

    /// The template of a job's script that is used unless there is another.
    pub fn template(self) -> &'static str {
        macro_rules! template {
            ($name:literal) => {
                include_str!(concat!("../../../../profiles/batch/", $name, ".template"))
            };
        }
        match self {
            Self::Slurm => template!("slurm"),
            Self::OpenPbs => template!("openpbs"),
            Self::Torque => template!("torque"),
            Self::Sge => template!("sge"),
            Self::Lsf => template!("lsf"),
            Self::HtCondor => template!("htcondor"),
        }
    }

    /// The programs as they are found in the PATH.
    pub fn commands(self) -> Commands {
        let [submit, list, details, history, cancel] = match self {
            Self::Slurm => ["sbatch", "squeue", "scontrol", "sacct", "scancel"],
            Self::OpenPbs => ["qsub", "qstat", "", "qstat", "qdel"],
            Self::Torque => ["qsub", "qstat", "", "", "qdel"],
            Self::Sge => ["qsub", "qstat", "", "qacct", "qdel"],
            Self::Lsf => ["bsub", "bjobs", "", "", "bkill"],
            Self::HtCondor => ["condor_submit", "condor_q", "", "condor_history", "condor_rm"],
        }
        .map(|program| if program.is_empty() { Vec::new() } else { vec![program.to_owned()] });
        Commands { submit, list, details, history, cancel }
    }

    /// The number of an array's first element.
    pub fn first_element(self) -> u32 {
        u32::from(self != Self::HtCondor)
    }

    /// What is given to the program that submits.
    pub(super) fn submit_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Slurm => &["--parsable"],
            Self::Sge | Self::HtCondor => &["-terse"],
            Self::OpenPbs | Self::Torque | Self::Lsf => &[],
        }
    }

    /// What in a script stands for the number of an array's element.
    pub(super) fn element_variable(self) -> &'static str {
        match self {
            Self::Slurm => "${SLURM_ARRAY_TASK_ID}",
            Self::OpenPbs => "${PBS_ARRAY_INDEX}",
            Self::Torque => "${PBS_ARRAYID}",
            Self::Sge => "${SGE_TASK_ID}",
            Self::Lsf => "${LSB_JOBINDEX}",
            Self::HtCondor => "$(Process)",
        }
    }

    /// What a script says of the file for what a job prints, so that each job and element has its own.
    pub(super) fn output_pattern(self, path: &str, is_array: bool) -> String {
        let what = match (self, is_array) {
            (Self::Slurm, false) => "-%j",
            (Self::Slurm, true) => "-%A_%a",
            // The job's id cannot be named here.
            (Self::OpenPbs, true) => "-^array_index^",
            (Self::OpenPbs, false) | (Self::Torque, _) => "",
            (Self::Sge, false) => "-$JOB_ID",
            (Self::Sge, true) => "-$JOB_ID.$TASK_ID",
            (Self::Lsf, false) => "-%J",
            (Self::Lsf, true) => "-%J.%I",
            (Self::HtCondor, false) => "-$(Cluster)",
            (Self::HtCondor, true) => "-$(Cluster).$(Process)",
        };
        format!("{path}{what}.log")
    }

    /// The file with what a job printed, or an element of one, if its script is made of a template that has `{output}`. `path` is
    /// what the job was given as its output.
    pub fn output_file(self, path: &Path, job: &Job, element: Option<u32>) -> PathBuf {
        let (path, number) = (path.to_string_lossy(), job.number());
        match (self, element) {
            (Self::OpenPbs | Self::Torque, None) => format!("{path}.log"),
            (Self::OpenPbs, Some(element)) => format!("{path}-{element}.log"),
            (Self::Torque, Some(element)) => format!("{path}.log-{element}"),
            (_, None) => format!("{path}-{number}.log"),
            (Self::Slurm, Some(element)) => format!("{path}-{number}_{element}.log"),
            (_, Some(element)) => format!("{path}-{number}.{element}.log"),
        }
        .into()
    }

    /// A job's id, or that of an element of its array, as the system writes it.
    pub fn element_id(self, job: &Job, element: Option<u32>) -> String {
        let Some(element) = element else { return job.id.clone() };
        match self {
            Self::Slurm => format!("{}_{element}", job.id),
            // `17[].server`
            Self::OpenPbs | Self::Torque => match job.id.split_once("[]") {
                Some((number, server)) => format!("{number}[{element}]{server}"),
                None => format!("{}[{element}]", job.id),
            },
            Self::Lsf => format!("{}[{element}]", job.id),
            Self::Sge | Self::HtCondor => format!("{}.{element}", job.id),
        }
    }

    /// What is given to the program that ends jobs.
    pub(super) fn cancel_arguments(self, job: &Job, element: Option<u32>) -> Vec<String> {
        match (self, element) {
            (Self::Sge, Some(element)) => vec![job.id.clone(), "-t".to_owned(), element.to_string()],
            _ => vec![self.element_id(job, element)],
        }
    }

    /// What the program that ends jobs says of one that has ended.
    pub(super) fn gone(self) -> &'static [&'static str] {
        match self {
            Self::Slurm => &["Invalid job id specified", "already completing or completed"],
            Self::OpenPbs | Self::Torque => pbs_gone(),
            Self::Sge => &["does not exist"],
            Self::Lsf => &["No matching job found", "Job has already finished", "is not found"],
            Self::HtCondor => &["Couldn't find/remove all jobs", "not found"],
        }
    }
}

/// What PBS says of a job that has ended: which words is a matter of the version.
pub(super) const fn pbs_gone() -> &'static [&'static str] {
    &["Unknown Job Id", "Job has finished", "Unknown Job"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_known_by_their_names() {
        for system in System::ALL {
            assert_eq!(System::named(system.key()), Some(system));
            assert!(system.template().contains("{command}"));
        }
        assert_eq!(System::named("pbs"), Some(System::Torque));
        assert_eq!(System::named("cron"), None);
    }

    #[test]
    fn elements_are_named_and_ended_as_each_system_has_it() {
        for (system, id, name, words) in [
            (System::Slurm, "12", "12_3", "12_3"),
            (System::OpenPbs, "12[].server", "12[3].server", "12[3].server"),
            (System::Torque, "12[].server", "12[3].server", "12[3].server"),
            (System::Sge, "12", "12.3", "12 -t 3"),
            (System::Lsf, "12", "12[3]", "12[3]"),
            (System::HtCondor, "12", "12.3", "12.3"),
        ] {
            let job = Job { id: id.into(), elements: 4 };
            assert_eq!(system.element_id(&job, Some(3)), name);
            assert_eq!(system.cancel_arguments(&job, Some(3)).join(" "), words);
            assert_eq!(system.cancel_arguments(&job, None), [id]);
        }
    }

    #[test]
    fn the_file_of_the_output_is_the_one_that_the_pattern_says() {
        let job = Job { id: "12[].server".into(), elements: 4 };
        for system in System::ALL {
            let pattern = system.output_pattern("/log/x", true);
            let file = [
                ("%A", "12"),
                ("%a", "3"),
                ("%J", "12"),
                ("%I", "3"),
                ("$JOB_ID", "12"),
                ("$TASK_ID", "3"),
                ("^array_index^", "3"),
                ("$(Cluster)", "12"),
                ("$(Process)", "3"),
            ]
            .iter()
            .fold(pattern, |text, (from, to)| text.replace(from, to));
            // Torque appends the element itself.
            let file = if system == System::Torque { format!("{file}-3") } else { file };
            assert_eq!(system.output_file(Path::new("/log/x"), &job, Some(3)), Path::new(&file), "{system:?}");
        }
    }
}
