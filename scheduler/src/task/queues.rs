//! The tasks that wait only for an engine, in order.
//!
//! A plain task stands in the queue of its need, one that only certain engines may run in the queues of those engines
//! (see [`Engine::own`](super::engines::Engine::own)), and one that any engine may run but those that tried it in
//! the queue of tasks to try elsewhere.

use std::collections::BTreeMap;

use remuda_proto::Map;
use remuda_proto::message::native::Need;

use super::place::Place;
use crate::slab::Slab;

/// What stands ready for one need.
#[derive(Debug)]
pub(super) struct NeedQueue {
    /// The need.
    pub(super) need: Need,
    /// How many live tasks have it.
    pub(super) jobs: usize,
    /// The kinds of engines that serve it.
    pub(super) kinds: Vec<u32>,
    /// Ready tasks that any engine may run, by place.
    pub(super) plain: BTreeMap<Place, u32>,
    /// Ready tasks that any engine may run but those that tried them, by place. An engine that has seen all up to some
    /// place need not look at them again in the same epoch.
    pub(super) elsewhere: BTreeMap<Place, u32>,
    /// Another one begins when a task joins `elsewhere` before the last place that one joined at.
    pub(super) epoch: u64,
    /// The last place at which a task joined `elsewhere`.
    last: Place,
}

impl NeedQueue {
    /// A task joins those to try elsewhere.
    pub(super) fn join_elsewhere(&mut self, place: Place, key: u32) {
        if place < self.last {
            self.epoch += 1;
        }
        self.last = self.last.max(place);
        self.elsewhere.insert(place, key);
    }
}

/// The queues, by need.
///
/// Costs are O(log n) in tasks. They grow with the number of *needs* that tasks have at a time, of which a cluster has a
/// few.
#[derive(Debug)]
pub(super) struct Queues {
    needs: Slab<NeedQueue>,
    /// All of `needs`.
    by_need: Map<Need, u32>,
    /// How many queues were made.
    made: u64,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self { needs: Slab::new(), by_need: Map::default(), made: 0 }
    }

    pub(super) fn find(&self, need: &Need) -> Option<u32> {
        self.by_need.get(need).copied()
    }

    /// A need that no task had.
    pub(super) fn insert(&mut self, need: Need, kinds: Vec<u32>) -> u32 {
        self.made += 1;
        let queue = NeedQueue {
            need: need.clone(),
            jobs: 0,
            kinds,
            plain: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            // Under its number there may have been another queue, of which engines have seen some.
            epoch: self.made << 32,
            last: Place::FIRST,
        };
        let at = self.needs.insert(queue);
        self.by_need.insert(need, at);
        at
    }

    /// Forgets a need that no task has any more.
    pub(super) fn remove(&mut self, need: u32) -> NeedQueue {
        let gone = self.needs.remove(need);
        assert!(
            gone.jobs == 0 && gone.plain.is_empty() && gone.elsewhere.is_empty(),
            "{} jobs still need {}",
            gone.jobs,
            gone.need
        );
        self.by_need.swap_remove(&gone.need);
        gone
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &NeedQueue)> {
        self.needs.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut NeedQueue)> {
        self.needs.iter_mut()
    }
}

impl std::ops::Index<u32> for Queues {
    type Output = NeedQueue;
    fn index(&self, need: u32) -> &NeedQueue {
        &self.needs[need]
    }
}

impl std::ops::IndexMut<u32> for Queues {
    fn index_mut(&mut self, need: u32) -> &mut NeedQueue {
        &mut self.needs[need]
    }
}
