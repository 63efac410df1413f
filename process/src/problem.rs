//! What is wrong with a definition.

use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `timeout`, `input_adapter.tcp_port`, `argv[2]`; `definition` for the whole.
    pub key: String,
    /// What was given and what to do, as it reads after the key: ``is `0`: give seconds, more than 0``.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.reason)
    }
}

/// Everything that is wrong with a definition: at least one thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `None` where nothing is wrong.
    pub(crate) fn new(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Each of them, in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// The reasons by key.
    pub fn by_key(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for problem in &self.0 {
            by_key.entry(&problem.key).or_default().push(&problem.reason);
        }
        by_key
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
