//! How jobs stand, whichever system runs them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nanny::End;

/// A job that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Job {
    /// The system's id of it, as the system takes it back.
    pub id: String,
    /// How many elements its array has; 0: it is no array.
    #[serde(default)]
    pub elements: u32,
}

impl Job {
    /// The number with which the id begins: it is what listings of the system can be compared by.
    pub(super) fn number(&self) -> u64 {
        leading_number(&self.id).unwrap_or_default()
    }
}

/// The number with which a text begins.
pub(super) fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// How a job stands, or an element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// The job's id.
    pub job: String,
    /// Which element of its array.
    pub element: Option<u32>,
    /// How it stands.
    pub state: JobState,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits, or is held.
    Pending {
        /// Why, in the system's words; empty: the system does not say.
        reason: String,
    },
    /// It runs, or is being ended.
    Running {
        /// On which host, the first if there are several; empty: the system does not say.
        host: String,
    },
    /// It has ended.
    Ended(JobEnd),
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// With exit code 0.
    Done,
    /// Otherwise.
    Failed {
        /// Its exit code, if it had one.
        code: Option<i32>,
        /// What the system says of it; may be empty.
        reason: String,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// What the system says of it; may be empty.
        reason: String,
    },
    /// The system does not know it, any more. Some systems do not know a job in the first seconds after it was submitted
    /// either: believe this the second time.
    Forgotten,
}

impl JobEnd {
    /// The same as the end of a nanny.
    pub fn end(&self) -> End {
        let with = |text: String, reason: &str| if reason.is_empty() { text } else { format!("{text} ({reason})") };
        let how = match self {
            Self::Done => "exited with 0".to_owned(),
            Self::Failed { code: Some(code), reason } => with(format!("exited with {code}"), reason),
            Self::Failed { code: None, reason } => with("failed".to_owned(), reason),
            Self::Cancelled { reason } => with("was cancelled".to_owned(), reason),
            Self::Forgotten => "has ended: the batch system does not know its job any more".to_owned(),
        };
        End { ok: *self == Self::Done, how, tail: String::new() }
    }

    /// The end by an exit code.
    pub(super) fn by_code(code: i32, reason: &str) -> Self {
        if code == 0 { Self::Done } else { Self::Failed { code: Some(code), reason: reason.to_owned() } }
    }
}

/// What a listing says of a job, or of an element of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) element: Option<u32>,
    pub(super) state: JobState,
}

/// What is known of each job and element that was asked for, each once: what was seen last of it.
pub(super) fn statuses(jobs: &[Job], first_element: u32, seen: Vec<Seen>) -> Vec<JobStatus> {
    let seen: BTreeMap<(u64, Option<u32>), JobState> =
        seen.into_iter().map(|seen| ((seen.number, seen.element), seen.state)).collect();
    let forgotten = JobState::Ended(JobEnd::Forgotten);
    let mut all = Vec::new();
    for job in jobs {
        let number = job.number();
        // Systems that have an array of one for every job give its only element.
        let any = seen.range((number, None)..=(number, Some(u32::MAX))).next_back();
        if job.elements == 0 {
            let state = any.map_or(&forgotten, |(_, state)| state).clone();
            all.push(JobStatus { job: job.id.clone(), element: None, state });
        }
        // An array that waits as a whole.
        let whole = seen.get(&(number, None)).filter(|state| matches!(state, JobState::Pending { .. }));
        for element in first_element..first_element + job.elements {
            let state = seen.get(&(number, Some(element))).or(whole).unwrap_or(&forgotten).clone();
            all.push(JobStatus { job: job.id.clone(), element: Some(element), state });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_has_one_status_and_those_that_are_not_listed_have_ended() {
        let running = || JobState::Running { host: "a".into() };
        let pending = || JobState::Pending { reason: "Resources".into() };
        let seen = vec![
            Seen { number: 7, element: Some(2), state: pending() },
            Seen { number: 7, element: Some(2), state: running() },
            Seen { number: 8, element: Some(0), state: running() },
            Seen { number: 9, element: None, state: pending() },
        ];
        let jobs: Vec<Job> = [("7[].server", 2), ("8", 0), ("9", 1), ("10", 0)]
            .map(|(id, elements)| Job { id: id.into(), elements })
            .into();
        let all = statuses(&jobs, 1, seen);
        let states: Vec<_> = all.iter().map(|status| (&*status.job, status.element, &status.state)).collect();
        let forgotten = &JobState::Ended(JobEnd::Forgotten);
        assert_eq!(
            states,
            [
                ("7[].server", Some(1), forgotten),
                ("7[].server", Some(2), &running()),
                ("8", None, &running()),
                ("9", Some(1), &pending()),
                ("10", None, forgotten),
            ]
        );
    }

    #[test]
    fn ends_are_told_as_those_of_nannies_are() {
        let failed = JobEnd::Failed { code: Some(3), reason: "NonZeroExitCode".into() };
        assert_eq!(failed.end().how, "exited with 3 (NonZeroExitCode)");
        assert!(JobEnd::Done.end().ok && !JobEnd::Forgotten.end().ok && JobEnd::by_code(0, "x") == JobEnd::Done);
    }
}
