//! Which tasks the scheduler has seen: the live ones, and as many finished ones as the limit allows.

use std::collections::VecDeque;

use remuda_proto::{Map, MsgId};

/// Stands for a `msg_id`: 128 bits, so that two that meet by chance are not to be expected in the life of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// That of a `msg_id`. Nobody without the cluster's key can choose one, so it need not resist an attack.
    pub(super) fn of(msg_id: &MsgId) -> Self {
        // An odd factor and a shift that folds the upper half into the lower one: each step maps states one to one for
        // given input, and spreads every bit over all.
        const FACTOR: u128 = 0x2d99_787a_a4a8_c3c5_9e37_79b9_7f4a_7c15;
        let step = |state: u128, word: u128| {
            let state = (state ^ word).wrapping_mul(FACTOR);
            state ^ (state >> 61)
        };
        let bytes = msg_id.as_str().as_bytes();
        let mut state = step(FACTOR, bytes.len() as u128);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            state = step(state, u128::from(u64::from_le_bytes(word.try_into().expect("a chunk of 8 bytes"))));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        state = step(step(state, u128::from(u64::from_le_bytes(last))), 0);
        let half = |state: u128| u64::try_from(state & u128::from(u64::MAX)).expect("64 bits");
        Self([half(state), half(state >> 64)])
    }
}

/// What is known of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has no final reply yet.
    Live {
        /// Its job.
        job: u32,
    },
    /// It had its final reply.
    Finished {
        /// Whether it succeeded.
        ok: bool,
        /// The engine that ran it last, if one did.
        engine: Option<u32>,
    },
}

/// All tasks that are known.
#[derive(Debug)]
pub(super) struct KnownTasks {
    /// By fingerprint.
    tasks: Map<Fingerprint, Known>,
    /// The finished ones of `tasks`, in the order in which they finished; no more than `limit`.
    finished: VecDeque<Fingerprint>,
    /// Most finished tasks remembered.
    limit: usize,
}

impl KnownTasks {
    pub(super) fn new(limit: usize) -> Self {
        Self { tasks: Map::default(), finished: VecDeque::new(), limit }
    }

    pub(super) fn find(&self, task: Fingerprint) -> Option<Known> {
        self.tasks.get(&task).copied()
    }

    /// The live task of this id.
    pub(super) fn live(&self, msg_id: &MsgId) -> Option<u32> {
        match self.find(Fingerprint::of(msg_id)) {
            Some(Known::Live { job }) => Some(job),
            _ => None,
        }
    }

    /// A new task.
    pub(super) fn insert(&mut self, task: Fingerprint, job: u32) {
        let before = self.tasks.insert(task, Known::Live { job });
        assert_eq!(before, None, "{task:?} was known before");
    }

    /// A live task finished. Returns the engine of one that is forgotten for it.
    pub(super) fn finish(&mut self, task: Fingerprint, ok: bool, engine: Option<u32>) -> Option<u32> {
        let before = self.tasks.insert(task, Known::Finished { ok, engine });
        assert!(matches!(before, Some(Known::Live { .. })), "{task:?} finished but was {before:?}");
        self.finished.push_back(task);
        if self.finished.len() <= self.limit {
            return None;
        }
        let oldest = self.finished.pop_front()?;
        match self.tasks.swap_remove(&oldest) {
            Some(Known::Finished { engine, .. }) => engine,
            other => panic!("{oldest:?} is among the finished tasks but is {other:?}"),
        }
    }

    /// How many finished tasks are remembered.
    pub(super) fn finished(&self) -> usize {
        self.finished.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Fingerprint, Known)> {
        self.tasks.iter().map(|(task, known)| (*task, *known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::Set;

    #[test]
    fn different_ids_have_different_fingerprints() {
        let mut seen = Set::default();
        let zeros = (0..40).map(|count| "\0".repeat(count));
        let counted = (0..50_000).map(|count| format!("4e319983-9407593a987af92a3fc36868_12173_{count}"));
        for id in zeros.chain(counted) {
            assert!(seen.insert(Fingerprint::of(&MsgId::from(&*id))), "{id:?}");
        }
        // Either half alone tells them apart: all bits take part.
        for half in 0..2 {
            let halves: Set<u64> = seen.iter().map(|print| print.0[half]).collect();
            assert_eq!(halves.len(), seen.len());
        }
    }

    #[test]
    fn the_oldest_finished_task_is_forgotten_first() {
        let print = |id: &str| Fingerprint::of(&MsgId::from(id));
        let mut known = KnownTasks::new(2);
        for (job, id) in (0..).zip(["a", "b", "c", "live"]) {
            known.insert(print(id), job);
        }
        assert_eq!(known.finish(print("b"), true, Some(7)), None);
        assert_eq!(known.finish(print("a"), false, None), None);
        assert_eq!(known.finish(print("c"), true, Some(8)), Some(7));
        assert_eq!(known.find(print("b")), None);
        assert_eq!(known.find(print("a")), Some(Known::Finished { ok: false, engine: None }));
        assert_eq!(known.live(&MsgId::from("live")), Some(3));
        assert_eq!(known.live(&MsgId::from("a")), None);
        assert_eq!((known.finished(), known.iter().count()), (2, 3));
    }
}
