//! A task inside the scheduler.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_proto::dependency::Bearing;
use remuda_proto::message::story::{AttemptEnd, MAX_ATTEMPTS};
use remuda_proto::monitor::Ticket;
use remuda_proto::{Body, Dependency, Identity, Instant, MsgId};

use super::known::Fingerprint;

/// When a timer goes off, and a number that tells it from others of the same moment.
pub(super) type Timer = (Instant, u64);

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for other tasks.
    Waiting,
    /// It has just become ready and is in no queue: only while an event is handled.
    Fresh,
    /// It waits for an engine, in the queues that suit it.
    Ready,
    /// It is ready but in no queue, since an engine of an earlier controller may have it, or the only ones that it may run
    /// on are yet to come back.
    Held,
    /// An engine has it.
    Assigned {
        /// The engine.
        engine: u32,
        /// Where it stands among the tasks of that engine.
        at: usize,
    },
    /// It will be answered by the scheduler before the event is done.
    Doomed,
}

/// A task without a final reply.
#[derive(Debug)]
pub(super) struct Job {
    /// The id of its request.
    pub(super) msg_id: MsgId,
    /// The fingerprint of `msg_id`.
    pub(super) print: Fingerprint,
    /// Who gets the reply; `None`: the hub alone.
    pub(super) client: Option<Identity>,
    /// The request as it came.
    pub(super) body: Body,
    /// What it needs of an engine: a key of the queues.
    pub(super) need: u32,
    /// Its number in the order of submission.
    pub(super) born: u64,
    /// Its place in the queues: at first its number in the order of submission, and a new one at the end each time it
    /// is queued again.
    pub(super) seq: u64,
    /// How often it may still be tried again after a failure.
    pub(super) retries: u32,
    /// How long it may wait each time it is queued.
    pub(super) timeout: Option<Duration>,
    /// While it waits or is ready, the end of `timeout`; while an engine that left has it, the end of the grace time.
    pub(super) timer: Option<Timer>,
    /// Where it is in its life.
    pub(super) state: State,
    /// When it came, was queued or was assigned, whichever was last.
    pub(super) since: Instant,
    /// An earlier controller had it, and this one did not send it to any engine, nor heard from an engine that has it.
    pub(super) inherited: bool,
    /// Its bytes are those that an earlier controller may have sent: an engine that has had them drops them.
    pub(super) stale: bool,
    /// The ticket of its request, until that is on disk; `None`: it is, or need not be.
    pub(super) ticket: Option<Ticket>,
    /// Of a task that is assigned: this controller sent it there, so that it counts towards the `hwm`.
    pub(super) given: bool,
    /// The live tasks that named this one in `after` or `follow`, in the order of submission: number and job.
    pub(super) dependents: BTreeSet<(u64, u32)>,
    /// What only some tasks have.
    pub(super) special: Option<Box<Special>>,
}

/// The conditions and the history of a task that is not a plain one. Engines are sorted and without duplicates, and each
/// is counted in the references of that engine.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// What it waits for. Empty if it was met when the task came.
    pub(super) after: Waits,
    /// Whose place it has to share.
    pub(super) follow: Waits,
    /// The engines that may run it; empty: any.
    pub(super) targets: Vec<u32>,
    /// The engines that tried it.
    pub(super) blacklist: Vec<u32>,
    /// How many of these did so under an earlier controller, so that no more is known of it.
    pub(super) untold: usize,
    /// The engine that had it under an earlier controller, if it was lost there. It may get it again.
    pub(super) lost: Option<u32>,
    /// The last of its attempts that ended, oldest first, for people who ask: no more than [`MAX_ATTEMPTS`], each on
    /// an engine of `blacklist` or on `lost`.
    pub(super) attempts: Vec<Tried>,
    /// The engines where tasks ran that count towards `follow`. With `all`, no more than one.
    pub(super) places: Vec<u32>,
    /// While ready and restricted: how many of the allowed engines are there and can run it.
    pub(super) open: usize,
}

/// An attempt that ended.
#[derive(Debug)]
pub(super) struct Tried {
    /// Which engine had the task.
    pub(super) engine: u32,
    /// When it was sent there.
    pub(super) sent: Instant,
    /// When it was taken back.
    pub(super) ended: Instant,
    /// Why.
    pub(super) end: AttemptEnd,
}

/// A dependency, and what the finished ones of its tasks said.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// The tasks.
    pub(super) on: Dependency,
    /// How many of them count towards it.
    pub(super) count_for: usize,
    /// How many of them no longer can.
    pub(super) count_against: usize,
}

impl Waits {
    pub(super) fn is_met(&self) -> bool {
        self.on.is_met(self.count_for)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.on.is_unreachable(self.count_against)
    }

    /// How many of the tasks have not finished.
    pub(super) fn outstanding(&self) -> usize {
        self.on.ids.len() - self.count_for - self.count_against
    }

    /// Takes note of a task that finished.
    pub(super) fn note(&mut self, counts: bool) {
        *(if counts { &mut self.count_for } else { &mut self.count_against }) += 1;
    }
}

impl Special {
    /// How many attempts at it ended.
    pub(super) fn tried(&self) -> usize {
        self.blacklist.len() + usize::from(self.lost.is_some())
    }

    /// All engines whose references it is counted in.
    pub(super) fn engines(&self) -> impl Iterator<Item = u32> {
        self.targets.iter().chain(&self.blacklist).chain(&self.places).chain(&self.lost).copied()
    }

    /// Whether only certain engines may run it.
    pub(super) fn is_restricted(&self) -> bool {
        !self.targets.is_empty() || !self.follow.on.is_empty()
    }

    /// The engines that may run a restricted task and did not yet try it.
    pub(super) fn allowed(&self) -> impl Iterator<Item = u32> {
        let follows = !self.follow.on.is_empty();
        let among = if follows { &self.places } else { &self.targets };
        among.iter().copied().filter(move |engine| {
            (!follows || self.targets.is_empty() || self.targets.binary_search(engine).is_ok())
                && self.blacklist.binary_search(engine).is_err()
        })
    }

    /// Takes note of an attempt that ended, for people who ask.
    pub(super) fn note_attempt(&mut self, tried: Tried) {
        if self.attempts.len() == MAX_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(tried);
    }

    /// The place that a finished task adds, if `follow` names it and it ran at `place`.
    ///
    /// A task that ran nowhere is no place to follow to, and two places are one too many where all count.
    pub(super) fn new_place(&self, ok: bool, place: Option<u32>) -> Option<u32> {
        let room = !self.follow.on.all || self.places.is_empty();
        place.filter(|place| room && self.follow.on.bearing(ok) == Bearing::For && !self.places.contains(place))
    }

    /// Takes note of a finished task that `follow` names. Returns the place that it adds, whose reference the caller has
    /// to count.
    pub(super) fn note_followed(&mut self, ok: bool, place: Option<u32>) -> Option<u32> {
        let new = self.new_place(ok, place);
        if let Some(place) = new {
            let at = self.places.partition_point(|other| *other < place);
            self.places.insert(at, place);
        }
        let known = place.is_some_and(|place| self.places.binary_search(&place).is_ok());
        self.follow.note(known && self.follow.on.bearing(ok) == Bearing::For);
        new
    }

    /// Whether a ready task has no engine left, and none to hope for.
    pub(super) fn is_hopeless(&self) -> bool {
        self.is_restricted() && self.open == 0 && self.follow.outstanding() == 0
    }
}

impl Job {
    /// The task's special side, which it is given if it has none.
    pub(super) fn special_mut(&mut self) -> &mut Special {
        self.special.get_or_insert_default()
    }

    /// Whether only certain engines may run it.
    pub(super) fn is_restricted(&self) -> bool {
        self.special.as_ref().is_some_and(|special| special.is_restricted())
    }

    /// The engines that tried it.
    pub(super) fn blacklist(&self) -> &[u32] {
        self.special.as_ref().map_or(&[], |special| &special.blacklist)
    }

    /// Whether what it waits for has happened, and it is on disk if it has to be.
    pub(super) fn is_met(&self) -> bool {
        self.ticket.is_none()
            && self.special.as_ref().is_none_or(|special| special.after.is_met() && special.follow.is_met())
    }
}
