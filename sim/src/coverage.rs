//! How often which kinds of things were done: what no seed does, no seed proves.

use std::collections::BTreeMap;
use std::fmt;

use remuda_scheduler::Scheme;

use crate::parameters::{Act, Fault};

/// Kinds of work and of outcomes, beside acts and faults, that seeds have to see.
pub const FEATURES: [&str; 25] = [
    "broadcast answered in one",
    "broadcast answered one by one",
    "controller died, durability async",
    "controller died, durability sync",
    "controller stood still longer than hearts may be silent",
    "engine declared dead that stood still, and came back",
    "engine that was given up and is back",
    "intake paused",
    "task after others",
    "task for named engines",
    "task of a program or native function",
    "task repeated by the hub",
    "task taken over that an engine had",
    "task taken over that waited",
    "task that follows others",
    "task that is begun as another one ends",
    "task that takes more or less than a slot",
    "task with a priority",
    "task that was lost with a controller, and tried again",
    "task with a timeout",
    "task with code",
    "task with retries",
    "task without metadata that makes sense",
    "engine that gets no more tasks",
    "engine that was drained, and told to end",
];

/// How often which kinds of things were done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Acts of clients that had something to act on.
    pub acts: BTreeMap<Act, u64>,
    /// Faults that hit something.
    pub faults: BTreeMap<Fault, u64>,
    /// Kinds of work and of outcomes: see [`FEATURES`].
    pub features: BTreeMap<&'static str, u64>,
    /// Runs with each scheme.
    pub schemes: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Something was done that many times.
    pub fn add(&mut self, feature: &'static str, times: u64) {
        assert!(FEATURES.contains(&feature), "{feature}");
        *self.features.entry(feature).or_default() += times;
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        fn add<K: Clone + Ord>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(key.clone()).or_default() += count;
            }
        }
        add(&mut self.acts, &other.acts);
        add(&mut self.faults, &other.faults);
        add(&mut self.features, &other.features);
        add(&mut self.schemes, &other.schemes);
    }

    /// All kinds of things, and how often each was done: also those that never were.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let of = |count: Option<&u64>| count.copied().unwrap_or(0);
        let acts = Act::ALL.iter().map(|act| (format!("act {act:?}"), of(self.acts.get(act))));
        let faults = Fault::ALL.iter().map(|fault| (format!("fault {fault:?}"), of(self.faults.get(fault))));
        let schemes =
            Scheme::ALL.iter().map(|scheme| (format!("scheme {scheme}"), of(self.schemes.get(scheme.name()))));
        let features = FEATURES.iter().map(|feature| ((*feature).to_owned(), of(self.features.get(feature))));
        acts.chain(faults).chain(schemes).chain(features).collect()
    }
}

impl fmt::Display for Coverage {
    /// One kind to a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().iter().try_for_each(|(what, count)| writeln!(f, "{count:>12} {what}"))
    }
}
