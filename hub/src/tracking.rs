//! What the schedulers' traffic says of each task and each engine
//! (`controller/hub.py: Hub.save_queue_request` and the methods after it).
//!
//! Three events a task come through here, so nothing is parsed and nothing is searched: the events bring what the
//! schedulers read already, and only counters move. Lists of ids are put together when somebody asks.
//!
//! Three things that stock keeps for ever are not kept here: engines that left, the earlier engines of a task that was
//! tried again, and records of output that belongs to no request.

use indexmap::map::Entry;
use remuda_proto::message::Status;
use remuda_proto::message::content::DoneCounts;
use remuda_proto::message::story::Attempt;
use remuda_proto::monitor::Queue;
use remuda_proto::{EngineUuid, Map, MsgId, Set};

/// Most requests without a reply that are tracked. Further ones run just the same, but the hub does not know them.
pub const MAX_LIVE_TASKS: usize = 4_000_000;

/// Most finished requests of which the hub knows that they finished, apart from their records. Between half of it and
/// all of it are remembered.
pub const MAX_FINISHED_IDS: usize = 65_536;

/// Most tasks whose attempts the hub knows after they ended, of those that were tried more than once. Between half of it
/// and all of it are remembered.
pub const MAX_RETRIED: usize = 8_192;

/// One registration of an engine. Ids can be asked for again once their engine has left, uuids too; these are new each
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EngineKey(u64);

/// Requests without a reply, and what each engine has to do and did.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    /// Requests without a reply, at most [`MAX_LIVE_TASKS`]. Disjoint from `finished`.
    live: Map<MsgId, Live>,
    /// How many of `live` wait for an engine.
    waiting: usize,
    /// Given to the next request: orders them by arrival.
    next_seq: u64,
    /// The last requests that ended, and the registered engine that ended them.
    finished: Generations<Option<EngineKey>, MAX_FINISHED_IDS>,
    /// What became of the attempts of the last tasks that were tried more than once and ended, and how many there were.
    attempts: Generations<(Vec<Attempt>, u64), MAX_RETRIED>,
    /// The engines that are registered, and those that left but whose direct requests are not given up yet.
    engines: Map<EngineKey, Load>,
    /// Given to the next engine: above every key that was given.
    next_key: u64,
    /// How many requests ended in which way.
    done: DoneCounts,
}

/// A request without a reply.
#[derive(Debug, Clone, Copy)]
struct Live {
    queue: Queue,
    place: Place,
    seq: u64,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits for an engine. Only on [`Queue::Task`].
    Waiting,
    /// It was sent to this engine. On a direct queue the engine is in `engines`.
    On(EngineKey),
    /// It was sent to an engine that had left by then. Only on [`Queue::Task`].
    Elsewhere,
}

/// What is known of a request at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It has no reply, and is there.
    Live(LivePlace),
    /// It ended.
    Finished,
    /// It never was, or is forgotten.
    Unknown,
}

/// Where a request without a reply is, for who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LivePlace {
    /// The task scheduler knows.
    Task,
    /// With the engine that its client named.
    Direct {
        /// On which queue.
        queue: Queue,
        /// Which engine.
        engine: EngineUuid,
        /// How many direct requests that engine has not answered.
        unanswered: usize,
    },
}

/// What an engine has to do and did.
#[derive(Debug)]
struct Load {
    uuid: EngineUuid,
    counts: Counts,
}

/// How many requests an engine has and had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Direct requests without a reply: those of `live` with this queue and engine.
    pub(crate) queue: usize,
    /// Tasks without a reply: those of `live` with this queue and engine.
    pub(crate) tasks: usize,
    /// Requests that it finished, since it registered. Aborted tasks are not counted, aborted direct requests are.
    pub(crate) completed: u64,
}

/// The ids of what an engine has and had, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) queue: Vec<MsgId>,
    pub(crate) tasks: Vec<MsgId>,
    pub(crate) completed: Vec<MsgId>,
}

/// Why a request is not tracked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Untracked {
    /// One by that id is or was.
    Known,
    /// There are [`MAX_LIVE_TASKS`].
    Full,
}

/// A reply to a request that is not tracked, or not from the engine that has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unexpected;

impl Tracking {
    /// An engine is registered.
    pub(crate) fn engine_joined(&mut self, uuid: EngineUuid) -> EngineKey {
        let key = EngineKey(self.next_key);
        self.next_key += 1;
        self.engines.insert(key, Load { uuid, counts: Counts::default() });
        key
    }

    /// A direct request came in for a registered engine.
    pub(crate) fn direct_request(&mut self, msg_id: &MsgId, queue: Queue, engine: EngineKey) -> Result<(), Untracked> {
        assert!(queue.is_direct(), "`{msg_id}` is no direct request but on {queue:?}");
        assert!(self.engines.contains_key(&engine), "a direct request for {engine:?}, which is not known");
        self.add(msg_id, queue, Place::On(engine))
    }

    /// A request came in for the task scheduler.
    pub(crate) fn task_request(&mut self, msg_id: &MsgId) -> Result<(), Untracked> {
        self.add(msg_id, Queue::Task, Place::Waiting)
    }

    /// A task was sent to an engine; `None`: to one that is not registered any more.
    pub(crate) fn task_sent(&mut self, msg_id: &MsgId, engine: Option<EngineKey>) -> Result<(), Unexpected> {
        self.move_task(msg_id, engine.map_or(Place::Elsewhere, Place::On))
    }

    /// A task waits for an engine once more.
    pub(crate) fn task_requeued(&mut self, msg_id: &MsgId) -> Result<(), Unexpected> {
        self.move_task(msg_id, Place::Waiting)
    }

    fn move_task(&mut self, msg_id: &MsgId, place: Place) -> Result<(), Unexpected> {
        let live = self.live.get_mut(msg_id).filter(|live| live.queue == Queue::Task).ok_or(Unexpected)?;
        let before = std::mem::replace(&mut live.place, place);
        self.move_count(Queue::Task, before, false);
        self.move_count(Queue::Task, place, true);
        Ok(())
    }

    /// An engine's reply to a direct request.
    pub(crate) fn direct_reply(
        &mut self,
        msg_id: &MsgId,
        queue: Queue,
        engine: &EngineUuid,
        status: Status,
    ) -> Result<(), Unexpected> {
        let (at, _, live) = self.live.get_full(msg_id).ok_or(Unexpected)?;
        let Place::On(id) = live.place else { return Err(Unexpected) };
        if live.queue != queue || !queue.is_direct() {
            return Err(Unexpected);
        }
        if self.engines.get(&id).is_none_or(|load| load.uuid != *engine) {
            return Err(Unexpected);
        }
        self.finish(at, Some(id), true, status);
        Ok(())
    }

    /// The reply to a task, from a registered engine or made by the scheduler.
    pub(crate) fn task_reply(
        &mut self,
        msg_id: &MsgId,
        engine: Option<EngineKey>,
        status: Status,
    ) -> Result<(), Unexpected> {
        let (at, _, live) = self.live.get_full(msg_id).ok_or(Unexpected)?;
        if live.queue != Queue::Task {
            return Err(Unexpected);
        }
        self.finish(at, engine, status != Status::Aborted, status);
        Ok(())
    }

    /// The direct requests of these engines that have no reply, in order of arrival.
    pub(crate) fn stranded(&self, engines: &Set<EngineKey>) -> Vec<(MsgId, EngineKey)> {
        let any = engines.iter().any(|id| self.engines.get(id).is_some_and(|load| load.counts.queue > 0));
        let mut lost: Vec<_> = Vec::new();
        // One look at all requests for however many engines; none if nothing is stranded.
        if any {
            lost.extend(self.live.iter().filter_map(|(msg_id, live)| match live.place {
                Place::On(id) if live.queue.is_direct() && engines.contains(&id) => {
                    Some((live.seq, msg_id.clone(), id))
                }
                _ => None,
            }));
            lost.sort_unstable();
        }
        lost.into_iter().map(|(_, msg_id, id)| (msg_id, id)).collect()
    }

    /// Gives up the direct requests of engines that left, in order of arrival, and forgets these engines.
    pub(crate) fn give_up(&mut self, engines: &Set<EngineKey>) -> Vec<(MsgId, EngineKey)> {
        let lost = self.stranded(engines);
        for (msg_id, _) in &lost {
            let at = self.live.get_index_of(msg_id).expect("it was among the live ones");
            self.finish(at, None, false, Status::Error);
        }
        for id in engines {
            self.engines.swap_remove(id);
        }
        lost
    }

    /// Whether the request has no reply yet.
    pub(crate) fn is_live(&self, msg_id: &MsgId) -> bool {
        self.live.contains_key(msg_id)
    }

    /// Whether the request is known to have ended. The oldest are forgotten.
    pub(crate) fn is_finished(&self, msg_id: &MsgId) -> bool {
        self.finished.contains(msg_id)
    }

    /// Where a request without a reply is.
    pub(crate) fn place(&self, msg_id: &MsgId) -> Option<LivePlace> {
        let Live { queue, place, .. } = *self.live.get(msg_id)?;
        match place {
            Place::On(id) if queue.is_direct() => {
                let load = self.engines.get(&id)?;
                Some(LivePlace::Direct { queue, engine: load.uuid.clone(), unanswered: load.counts.queue })
            }
            _ => Some(LivePlace::Task),
        }
    }

    /// What is known of a request now.
    pub(crate) fn see(&self, msg_id: &MsgId) -> Seen {
        match self.place(msg_id) {
            Some(place) => Seen::Live(place),
            None if self.is_finished(msg_id) => Seen::Finished,
            None => Seen::Unknown,
        }
    }

    /// The ids that begin with this, of requests without a reply and of the last that ended; not many more than `most`.
    /// Looks at all of them.
    pub(crate) fn alike(&self, prefix: &str, most: usize) -> Vec<MsgId> {
        let finished = self.finished.iter().map(|(msg_id, _)| msg_id);
        let all = finished.chain(self.live.keys());
        all.filter(|msg_id| msg_id.as_str().starts_with(prefix)).take(most).cloned().collect()
    }

    /// Some requests without a reply: the oldest, more or less.
    pub(crate) fn first_live(&self, most: usize) -> Vec<MsgId> {
        self.live.keys().take(most).cloned().collect()
    }

    /// A task that was tried more than once is about to end.
    pub(crate) fn note_attempts(&mut self, msg_id: MsgId, attempts: Vec<Attempt>, tried: u64) {
        self.attempts.insert(msg_id, (attempts, tried));
    }

    /// What became of the attempts of a task that ended, and how many there were; `None` if it was tried once, or that is
    /// forgotten.
    pub(crate) fn attempts(&self, msg_id: &MsgId) -> Option<(&[Attempt], u64)> {
        self.attempts.get(msg_id).map(|(attempts, tried)| (&**attempts, *tried))
    }

    /// How many requests that ended are remembered.
    pub(crate) fn finished_ids(&self) -> usize {
        self.finished.len()
    }

    /// How many tasks wait for an engine.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many requests are with an engine.
    pub(crate) fn running(&self) -> usize {
        self.live.len() - self.waiting
    }

    /// How many requests ended in which way.
    pub(crate) fn done(&self) -> DoneCounts {
        self.done
    }

    /// What an engine has and had; `None` for one that is not known.
    pub(crate) fn counts(&self, id: EngineKey) -> Option<Counts> {
        self.engines.get(&id).map(|load| load.counts)
    }

    /// The ids behind the counts of these engines, and those of the tasks that wait.
    pub(crate) fn lists(&self, engines: &[EngineKey]) -> (Map<EngineKey, Lists>, Vec<MsgId>) {
        let mut lists: Map<EngineKey, Lists> = engines.iter().map(|id| (*id, Lists::default())).collect();
        let mut waiting = Vec::new();
        let mut live: Vec<_> = self.live.iter().map(|(msg_id, live)| (live.seq, live, msg_id)).collect();
        live.sort_unstable_by_key(|(seq, ..)| *seq);
        for (_, live, msg_id) in live {
            match live.place {
                Place::Waiting => waiting.push(msg_id.clone()),
                Place::Elsewhere => {}
                Place::On(id) => {
                    let Some(lists) = lists.get_mut(&id) else { continue };
                    match live.queue {
                        Queue::Mux | Queue::Broadcast => lists.queue.push(msg_id.clone()),
                        Queue::Task => lists.tasks.push(msg_id.clone()),
                    }
                }
            }
        }
        for (msg_id, engine) in self.finished.iter() {
            if let Some(lists) = engine.and_then(|id| lists.get_mut(&id)) {
                lists.completed.push(msg_id.clone());
            }
        }
        (lists, waiting)
    }

    /// Panics if the counters are not what the requests add up to.
    pub(crate) fn check(&self) {
        let mut waiting = 0;
        let mut counts: Map<EngineKey, (usize, usize)> = Map::default();
        for (msg_id, live) in &self.live {
            assert!(!self.finished.contains(msg_id), "`{msg_id}` is both live and finished");
            assert!(live.seq < self.next_seq);
            if let Place::On(EngineKey(key)) = live.place {
                assert!(key < self.next_key);
            }
            match (live.queue, live.place) {
                (Queue::Task, Place::Waiting) => waiting += 1,
                (Queue::Task, Place::Elsewhere) => {}
                (Queue::Task, Place::On(id)) => counts.entry(id).or_default().1 += 1,
                (Queue::Mux | Queue::Broadcast, Place::On(id)) => {
                    assert!(self.engines.contains_key(&id), "direct request `{msg_id}` on unknown {id:?}");
                    counts.entry(id).or_default().0 += 1;
                }
                (Queue::Mux | Queue::Broadcast, place) => panic!("direct request `{msg_id}` is {place:?}"),
            }
        }
        assert_eq!(self.waiting, waiting, "waiting");
        for (id, load) in &self.engines {
            let (queue, tasks) = counts.get(id).copied().unwrap_or_default();
            assert_eq!((load.counts.queue, load.counts.tasks), (queue, tasks), "{id:?}");
        }
        assert!(self.live.len() <= MAX_LIVE_TASKS);
        assert!(self.finished.len() <= MAX_FINISHED_IDS);
        assert!(self.attempts.len() <= MAX_RETRIED);
    }

    fn add(&mut self, msg_id: &MsgId, queue: Queue, place: Place) -> Result<(), Untracked> {
        if self.is_finished(msg_id) {
            return Err(Untracked::Known);
        }
        let count = self.live.len();
        let Entry::Vacant(vacant) = self.live.entry(msg_id.clone()) else { return Err(Untracked::Known) };
        if count >= MAX_LIVE_TASKS {
            return Err(Untracked::Full);
        }
        vacant.insert(Live { queue, place, seq: self.next_seq });
        self.next_seq += 1;
        self.move_count(queue, place, true);
        Ok(())
    }

    /// The live request in place `at` ends.
    fn finish(&mut self, at: usize, engine: Option<EngineKey>, counts: bool, status: Status) {
        let (msg_id, live) = self.live.swap_remove_index(at).expect("only live requests finish");
        self.move_count(live.queue, live.place, false);
        let load = if counts { engine.and_then(|id| self.engines.get_mut(&id)) } else { None };
        let listed = load.is_some();
        if let Some(load) = load {
            load.counts.completed += 1;
        }
        self.finished.insert(msg_id, engine.filter(|_| listed));
        match status {
            Status::Ok => self.done.ok += 1,
            Status::Error => self.done.error += 1,
            Status::Aborted => self.done.aborted += 1,
        }
    }

    /// Counts a request at a place, or no longer.
    fn move_count(&mut self, queue: Queue, place: Place, there: bool) {
        let count = match place {
            Place::Waiting => &mut self.waiting,
            Place::Elsewhere => return,
            Place::On(id) => {
                // An engine is forgotten some time after it left; its tasks may still wait for what the scheduler does.
                let Some(load) = self.engines.get_mut(&id) else { return };
                match queue {
                    Queue::Mux | Queue::Broadcast => &mut load.counts.queue,
                    Queue::Task => &mut load.counts.tasks,
                }
            }
        };
        if there {
            *count += 1;
        } else {
            assert!(*count > 0, "a request leaves {place:?} on {queue:?}, where none is");
            *count -= 1;
        }
    }
}

/// What is known of the last requests of some kind.
#[derive(Debug)]
struct Generations<T, const LIMIT: usize> {
    /// The last of them, fewer than half of the limit.
    young: Map<MsgId, T>,
    /// Those before; dropped whole when `young` has grown to half the limit. Disjoint from `young`.
    old: Map<MsgId, T>,
}

impl<T, const LIMIT: usize> Default for Generations<T, LIMIT> {
    fn default() -> Self {
        Self { young: Map::default(), old: Map::default() }
    }
}

impl<T, const LIMIT: usize> Generations<T, LIMIT> {
    fn insert(&mut self, msg_id: MsgId, known: T) {
        self.young.insert(msg_id, known);
        if self.young.len() >= LIMIT / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    fn get(&self, msg_id: &MsgId) -> Option<&T> {
        self.young.get(msg_id).or_else(|| self.old.get(msg_id))
    }

    fn contains(&self, msg_id: &MsgId) -> bool {
        self.get(msg_id).is_some()
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn iter(&self) -> impl Iterator<Item = (&MsgId, &T)> {
        self.old.iter().chain(&self.young)
    }
}
