//! Where a task may follow others to.

use std::collections::BTreeSet;

use remuda_proto::dependency::Bearing;
use remuda_proto::{Dependency, EngineUuid};

use super::book::TaskBook;

/// What the ended tasks that a `follow` names say of where to go.
pub(super) struct Places<'a> {
    follow: &'a Dependency,
    /// Where those ran that count.
    at: BTreeSet<&'a EngineUuid>,
    /// How many count and ran somewhere.
    counting: usize,
    /// How many no longer can count, or ran nowhere.
    against: usize,
}

impl<'a> Places<'a> {
    pub(super) fn of(book: &'a TaskBook, follow: &'a Dependency) -> Self {
        let mut places = Self { follow, at: BTreeSet::new(), counting: 0, against: 0 };
        for (ok, engine) in follow.ids.iter().filter_map(|id| book.tasks.get(id)?.ended.as_ref()) {
            match (follow.bearing(*ok), engine) {
                (Bearing::For, Some(engine)) => {
                    places.at.insert(engine);
                    places.counting += 1;
                }
                _ => places.against += 1,
            }
        }
        places
    }

    /// Whether enough of what it follows has ended.
    pub(super) fn is_met(&self) -> bool {
        self.follow.is_empty() || self.follow.is_met(self.counting)
    }

    /// Whether the task may go to this engine now.
    pub(super) fn allow(&self, engine: &EngineUuid) -> bool {
        self.follow.is_empty() || (self.at.contains(engine) && self.is_met() && !(self.follow.all && self.at.len() > 1))
    }

    /// Whether there is no engine that it may ever go to, as far as `follow` goes.
    pub(super) fn are_impossible(&self, lives: impl Fn(&EngineUuid) -> bool) -> bool {
        if self.follow.is_empty() {
            return false;
        }
        let nowhere = self.counting + self.against == self.follow.ids.len() && !self.at.iter().any(|at| lives(at));
        self.follow.is_unreachable(self.against) || (self.follow.all && self.at.len() > 1) || nowhere
    }
}
