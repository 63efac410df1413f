//! What tasks take of an engine, and what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use remuda_proto::message::native::Capability;
use remuda_proto::message::needs::{Amount, Needs};

/// What the tasks of an engine take, in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    cpus: u64,
    /// By name; none is 0.
    resources: BTreeMap<Arc<str>, u64>,
}

/// What is free on an engine, in thousandths: slots, then the other resources of its kind in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    cpus: u64,
    resources: Vec<u64>,
}

fn cpus(asks: Option<&Needs>) -> u64 {
    u64::from(asks.map_or(Amount::ONE, Needs::cpus).milli())
}

/// How much of a resource an engine may be given: so much for each that it has.
fn limit(has: u64, hwm: usize) -> u64 {
    has.saturating_mul(hwm as u64)
}

fn slots(capability: &Capability) -> u64 {
    u64::from(capability.slots) * 1000
}

impl Used {
    /// Of its slots.
    pub(super) fn cpus(&self) -> u64 {
        self.cpus
    }

    /// A task takes this; `None`: one slot.
    pub(super) fn add(&mut self, asks: Option<&Needs>) {
        self.cpus += cpus(asks);
        for (name, amount) in asks.into_iter().flat_map(Needs::resources) {
            *self.resources.entry(Arc::clone(name)).or_default() += u64::from(amount.milli());
        }
    }

    /// A task gives back what it took.
    pub(super) fn remove(&mut self, asks: Option<&Needs>) {
        self.cpus -= cpus(asks);
        for (name, amount) in asks.into_iter().flat_map(Needs::resources) {
            let used = self.resources.get_mut(name).unwrap_or_else(|| panic!("nobody took `{name}`"));
            *used -= u64::from(amount.milli());
            if *used == 0 {
                self.resources.remove(name);
            }
        }
    }

    fn of(&self, name: &str) -> u64 {
        self.resources.get(name).copied().unwrap_or(0)
    }

    /// Whether so much is left of what an engine may be given, beside what is reserved.
    pub(super) fn leaves(&self, has: &Capability, hwm: usize, reserved: Option<&Needs>, asks: Option<&Needs>) -> bool {
        let kept = reserved.map_or(0, |needs| cpus(Some(needs)));
        if self.cpus + kept + cpus(asks) > limit(slots(has), hwm) {
            return false;
        }
        asks.into_iter().flat_map(Needs::resources).all(|(name, amount)| {
            let all = has.resources.get(name).map_or(0, |amount| u64::from(amount.milli()));
            let kept = reserved.and_then(|needs| needs.resources().get(name)).map_or(0, |kept| u64::from(kept.milli()));
            self.of(name) + kept + u64::from(amount.milli()) <= limit(all, hwm)
        })
    }

    /// Whether any part of a slot is left.
    pub(super) fn leaves_any(&self, has: &Capability, hwm: usize) -> bool {
        self.cpus < limit(slots(has), hwm)
    }

    /// What is left beside what is reserved; `None`: no part of a slot.
    pub(super) fn room(&self, has: &Capability, hwm: usize, reserved: Option<&Needs>) -> Option<Room> {
        if hwm == 0 {
            return Some(Room { cpus: u64::MAX, resources: vec![u64::MAX; has.resources.len()] });
        }
        let kept = reserved.map_or(0, |needs| cpus(Some(needs)));
        let left = limit(slots(has), hwm).saturating_sub(self.cpus + kept);
        let resources = has.resources.iter().map(|(name, amount)| {
            let kept = reserved.and_then(|needs| needs.resources().get(name)).map_or(0, |kept| u64::from(kept.milli()));
            limit(u64::from(amount.milli()), hwm).saturating_sub(self.of(name) + kept)
        });
        (left > 0).then(|| Room { cpus: left, resources: resources.collect() })
    }
}

impl Room {
    /// Whether a task that takes this finds it here.
    pub(super) fn fits(&self, has: &Capability, asks: &Needs) -> bool {
        cpus(Some(asks)) <= self.cpus
            && asks.resources().iter().all(|(name, amount)| {
                let at = has.resources.keys().position(|other| other == name);
                at.is_some_and(|at| u64::from(amount.milli()) <= self.resources[at])
            })
    }
}

#[cfg(test)]
mod tests {
    use remuda_proto::message::native::Announcement;
    use remuda_proto::message::needs::Resources;

    use super::*;

    fn capability() -> Capability {
        Capability::native(&Announcement {
            slots: 4,
            resources: Resources::from([("gpu".into(), Amount::ONE)]),
            ..Announcement::default()
        })
    }

    fn needs(text: &str) -> Needs {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_reserved_counts_only_against_who_wants_the_same() {
        let (has, mut used) = (capability(), Used::default());
        used.add(Some(&needs("gpu=1")));
        let waits = needs("gpu=1");
        assert!(!used.leaves(&has, 1, None, Some(&waits)), "the gpu is taken");
        assert!(used.leaves(&has, 2, None, Some(&waits)), "and may wait at the engine");
        let beside = |asks: &str| used.leaves(&has, 1, Some(&waits), Some(&needs(asks)));
        assert!(beside("cpus=2") && !beside("cpus=3"), "one slot is taken, one reserved");
        assert!(used.leaves(&has, 1, Some(&waits), None));
    }

    #[test]
    fn room_says_the_same_as_the_count() {
        let (has, mut used) = (capability(), Used::default());
        for taken in ["cpus=0.5", "gpu=0.5", "cpus=2", "cpus=0.5"] {
            for reserved in [None, Some(needs("gpu=0.5")), Some(needs("cpus=4"))] {
                for hwm in [1, 2] {
                    let room = used.room(&has, hwm, reserved.as_ref());
                    for asks in ["cpus=0.5", "", "cpus=2", "gpu=0.5", "cpus=3,gpu=1", "disk=1"].map(needs) {
                        let fits = room.as_ref().is_some_and(|room| room.fits(&has, &asks));
                        assert_eq!(fits, used.leaves(&has, hwm, reserved.as_ref(), Some(&asks)), "{asks}");
                    }
                }
            }
            used.add(Some(&needs(taken)));
        }
        for taken in ["cpus=0.5", "gpu=0.5", "cpus=2", "cpus=0.5"] {
            used.remove(Some(&needs(taken)));
        }
        assert_eq!(used, Used::default());
    }
}
