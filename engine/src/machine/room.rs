//! What an engine has for tasks to take, and what of it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_proto::message::native::Capability;
use remuda_proto::message::needs::Needs;

/// Most tasks at once, whatever little they take: each has a thread of its own, and some open files.
pub(crate) const MAX_RUNNING: usize = 4096;

/// Cores and resources. Amounts are in thousandths.
pub(super) struct Room {
    has: Capability,
    /// Of the cores: at most as many as there are.
    taken_cpus: u64,
    /// Of the other resources, by name; none is 0, none above what there is.
    taken: BTreeMap<Arc<str>, u64>,
    /// How many tasks have taken something: at most [`MAX_RUNNING`].
    tasks: usize,
}

impl Room {
    pub(super) fn new(has: Capability) -> Self {
        Self { has, taken_cpus: 0, taken: BTreeMap::new(), tasks: 0 }
    }

    /// Whether it has so much in all.
    pub(super) fn has(&self, needs: &Needs) -> bool {
        self.has.has(needs)
    }

    /// What it has, in words.
    pub(super) fn describe(&self) -> String {
        let resources = self.has.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        let labels = self.has.labels.iter().map(|label| format!("label={label}"));
        let all: Vec<String> =
            [format!("cpus={}", self.has.slots)].into_iter().chain(resources).chain(labels).collect();
        all.join(",")
    }

    /// Whether so much is free.
    pub(super) fn fits(&self, needs: &Needs) -> bool {
        let free = |(name, amount): (&Arc<str>, u32)| {
            let has = self.has.resources.get(name).map_or(0, |has| u64::from(has.milli()));
            self.taken.get(name).copied().unwrap_or(0) + u64::from(amount) <= has
        };
        self.tasks < MAX_RUNNING
            && self.taken_cpus + u64::from(needs.cpus().milli()) <= u64::from(self.has.slots) * 1000
            && needs.resources().iter().map(|(name, amount)| (name, amount.milli())).all(free)
    }

    /// A task takes what fits.
    pub(super) fn take(&mut self, needs: &Needs) {
        assert!(self.fits(needs), "{needs} is not free");
        self.tasks += 1;
        self.taken_cpus += u64::from(needs.cpus().milli());
        for (name, amount) in needs.resources() {
            *self.taken.entry(Arc::clone(name)).or_default() += u64::from(amount.milli());
        }
    }

    /// A task gives back what it took.
    pub(super) fn give_back(&mut self, needs: &Needs) {
        self.tasks -= 1;
        self.taken_cpus -= u64::from(needs.cpus().milli());
        for (name, amount) in needs.resources() {
            let taken = self.taken.get_mut(name).unwrap_or_else(|| panic!("nobody took `{name}`"));
            *taken -= u64::from(amount.milli());
            if *taken == 0 {
                self.taken.remove(name);
            }
        }
    }

    /// Panics unless exactly this is taken.
    pub(super) fn check<'a>(&self, taken: impl Iterator<Item = &'a Needs>) {
        let mut other = Self::new(self.has.clone());
        taken.for_each(|needs| other.take(needs));
        assert_eq!((other.tasks, other.taken_cpus, other.taken), (self.tasks, self.taken_cpus, self.taken.clone()));
    }
}
