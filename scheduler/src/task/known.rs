//! Which tasks the scheduler has seen: the live ones, and as many finished ones as the limit allows.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use remuda_proto::MsgId;

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
///
/// A finished one takes 20 bytes and its share of a table of 4-byte places: there may be a million, and they are for good. A
/// live one takes its share of a table of 8 bytes; its whole fingerprint is where its job is, so that whoever asks has to
/// say what that of a job is.
#[derive(Debug)]
pub(super) struct KnownTasks {
    /// The live tasks.
    live: HashTable<Live>,
    /// The finished tasks, disjoint from `live`; no more than `limit`. While there are fewer, in the order in which they
    /// finished; then the oldest is at `oldest`, and the order goes round.
    finished: Vec<Finished>,
    /// Where each of `finished` is.
    places: HashTable<u32>,
    /// Place of the oldest in `finished` once that is full; 0 before.
    oldest: usize,
    /// Most finished tasks remembered.
    limit: usize,
}

/// A live task.
#[derive(Clone, Copy, Debug)]
struct Live {
    /// The last 32 bits of its fingerprint: enough to tell it from nearly all others.
    print: u32,
    /// Its job.
    job: u32,
}

impl Live {
    fn new(task: Fingerprint, job: u32) -> Self {
        let print = u32::try_from(task.0[0] & u64::from(u32::MAX)).expect("32 bits");
        Self { print, job }
    }

    /// Where it stands in the table. All bits count: the first of these choose among those that meet.
    fn hash(self) -> u64 {
        u64::from(self.print).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A finished task, in little room.
#[derive(Clone, Copy, Debug)]
struct Finished {
    /// The halves of the fingerprint's halves, so that nothing is lost to alignment.
    print: [u32; 4],
    /// Whether it succeeded: the lowest bit. Above it the number of the engine that ran it last plus one, or zero.
    outcome: u32,
}

impl Finished {
    fn new(task: Fingerprint, ok: bool, engine: Option<u32>) -> Self {
        let engine = engine.map_or(0, |engine| engine + 1);
        assert!(engine < 1 << 31, "engine {engine} is beyond what fits");
        let [a, b] = task.0.map(u64::to_le_bytes);
        let part = |half: [u8; 8], at: usize| u32::from_le_bytes([half[at], half[at + 1], half[at + 2], half[at + 3]]);
        Self { print: [part(a, 0), part(a, 4), part(b, 0), part(b, 4)], outcome: engine << 1 | u32::from(ok) }
    }

    fn task(&self) -> Fingerprint {
        let [a, b, c, d] = self.print.map(u64::from);
        Fingerprint([a | b << 32, c | d << 32])
    }

    fn known(&self) -> Known {
        Known::Finished { ok: self.outcome & 1 == 1, engine: (self.outcome >> 1).checked_sub(1) }
    }
}

impl KnownTasks {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize);
        Self { live: HashTable::new(), finished: Vec::new(), places: HashTable::new(), oldest: 0, limit }
    }

    /// What is known of a task.
    pub(super) fn find(&self, task: Fingerprint, print_of: impl Fn(u32) -> Fingerprint) -> Option<Known> {
        if let Some(job) = self.live(task, print_of) {
            return Some(Known::Live { job });
        }
        let at = self.places.find(task.0[0], |at| self.finished[*at as usize].task() == task)?;
        Some(self.finished[*at as usize].known())
    }

    /// The job of a live task.
    pub(super) fn live(&self, task: Fingerprint, print_of: impl Fn(u32) -> Fingerprint) -> Option<u32> {
        let wanted = Live::new(task, 0);
        let is_it = |other: &Live| other.print == wanted.print && print_of(other.job) == task;
        self.live.find(wanted.hash(), is_it).map(|live| live.job)
    }

    /// A new task.
    pub(super) fn insert(&mut self, task: Fingerprint, job: u32, print_of: impl Fn(u32) -> Fingerprint) {
        let new = Live::new(task, job);
        let is_it = |other: &Live| other.print == new.print && print_of(other.job) == task;
        match self.live.entry(new.hash(), is_it, |live| live.hash()) {
            Entry::Occupied(_) => panic!("{task:?} was known before"),
            Entry::Vacant(place) => _ = place.insert(new),
        }
    }

    /// A live task finished. Returns the engine of one that is forgotten for it.
    pub(super) fn finish(&mut self, task: Fingerprint, job: u32, ok: bool, engine: Option<u32>) -> Option<u32> {
        let Ok(entry) = self.live.find_entry(Live::new(task, job).hash(), |live| live.job == job) else {
            panic!("{task:?} finished but was not live")
        };
        entry.remove();
        // After a long queue: all of it is moved once, when three quarters are gone.
        if self.live.capacity() > 4096 && self.live.len() < self.live.capacity() / 4 {
            self.live.shrink_to(2 * self.live.len(), |live| live.hash());
        }
        self.remember(task, ok, engine)
    }

    /// A task that is not known finished once. Returns the engine of one that is forgotten for it.
    pub(super) fn remember(&mut self, task: Fingerprint, ok: bool, engine: Option<u32>) -> Option<u32> {
        let new = Finished::new(task, ok, engine);
        let (at, forgotten) = if self.limit == 0 {
            return engine;
        } else if self.finished.len() < self.limit {
            self.finished.push(new);
            (self.finished.len() - 1, None)
        } else {
            let at = self.oldest;
            let old = std::mem::replace(&mut self.finished[at], new);
            self.forget(old.task(), at);
            self.oldest = (at + 1) % self.limit;
            (at, Some(old))
        };
        let place = u32::try_from(at).expect("the limit fits");
        let finished = &self.finished;
        self.places.insert_unique(task.0[0], place, |at| finished[*at as usize].task().0[0]);
        match forgotten?.known() {
            Known::Finished { engine, .. } => engine,
            Known::Live { .. } => None,
        }
    }

    /// Takes out the place of a finished task.
    fn forget(&mut self, task: Fingerprint, at: usize) {
        let Ok(entry) = self.places.find_entry(task.0[0], |place| *place as usize == at) else {
            panic!("{task:?} is at {at} but not listed there")
        };
        entry.remove();
    }

    /// How many finished tasks are remembered.
    pub(super) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// All that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = Known> {
        let live = self.live.iter().map(|live| Known::Live { job: live.job });
        live.chain(self.finished.iter().map(Finished::known))
    }

    /// Panics if a finished task is not found where it is.
    pub(super) fn check(&self, print_of: impl Fn(u32) -> Fingerprint) {
        assert_eq!(self.places.len(), self.finished.len());
        assert!(self.finished.len() <= self.limit && self.oldest <= self.finished.len());
        for finished in &self.finished {
            assert_eq!(self.find(finished.task(), &print_of), Some(finished.known()), "{:?}", finished.task());
        }
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
        let ids = ["a", "b", "c", "live"];
        let print_of = |job: u32| print(ids[job as usize]);
        let mut known = KnownTasks::new(2);
        for (job, id) in (0..).zip(ids) {
            known.insert(print(id), job, print_of);
        }
        assert_eq!(known.finish(print("b"), 1, true, Some(7)), None);
        assert_eq!(known.finish(print("a"), 0, false, None), None);
        assert_eq!(known.finish(print("c"), 2, true, Some(8)), Some(7));
        assert_eq!(known.find(print("b"), print_of), None);
        assert_eq!(known.find(print("a"), print_of), Some(Known::Finished { ok: false, engine: None }));
        assert_eq!(known.live(print("live"), print_of), Some(3));
        assert_eq!(known.live(print("a"), print_of), None);
        assert_eq!((known.finished(), known.iter().count()), (2, 3));
    }

    #[test]
    fn as_many_as_the_limit_allows_are_known_however_many_pass() {
        let limit = 1000;
        let print = |number: u32| Fingerprint::of(&MsgId::from(format!("task-{number}")));
        let mut known = KnownTasks::new(limit);
        let mut forgotten = 0;
        for number in 0..20_000 {
            known.insert(print(number), number, print);
            forgotten += known.finish(print(number), number, number % 3 == 0, Some(number)).map_or(0, |engine| {
                assert_eq!(engine as usize + limit, number as usize);
                1
            });
        }
        known.check(print);
        assert_eq!((known.finished(), forgotten), (limit, 19_000));
        for number in 0..20_000 {
            let expected = (number >= 19_000).then_some(Known::Finished { ok: number % 3 == 0, engine: Some(number) });
            assert_eq!(known.find(print(number), print), expected);
        }
        let mut none = KnownTasks::new(0);
        none.insert(print(1), 1, print);
        assert_eq!(none.finish(print(1), 1, true, Some(5)), Some(5));
        assert_eq!((none.find(print(1), print), none.finished()), (None, 0));
    }

    #[test]
    fn live_tasks_that_share_32_bits_are_told_apart() {
        let prints = [Fingerprint([5, 1]), Fingerprint([5, 2]), Fingerprint([5 | 1 << 32, 1])];
        let print_of = |job: u32| prints[job as usize];
        let mut known = KnownTasks::new(10);
        (0..2).for_each(|job| known.insert(prints[job as usize], job, print_of));
        assert_eq!(prints.map(|print| known.live(print, print_of)), [Some(0), Some(1), None]);
        known.insert(prints[2], 2, print_of);
        known.finish(prints[0], 0, true, None);
        assert_eq!(prints.map(|print| known.live(print, print_of)), [None, Some(1), Some(2)]);
    }
}
