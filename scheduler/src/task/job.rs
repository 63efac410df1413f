//! A task inside the scheduler.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

use remuda_proto::dependency::Bearing;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::needs::Extras;
use remuda_proto::message::restart::Restart;
use remuda_proto::message::story::{AttemptEnd, MAX_ATTEMPTS};
use remuda_proto::monitor::Ticket;
use remuda_proto::{Body, Dependency, Identity, Instant, MsgId};

use super::known::Fingerprint;
use super::place::Place;
use super::stopping::Stopping;

/// When a timer goes off, and a number that tells it from others of the same moment.
pub(super) type Timer = (Instant, u64);

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for other tasks.
    Waiting,
    /// It is a service that ended, and is ready again when its timer goes off.
    BackingOff,
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
        at: u32,
    },
    /// It will be answered by the scheduler before the event is done.
    Doomed,
}

/// A task without a final reply. There may be a million: what few of them have is kept apart.
#[derive(Debug)]
pub(super) struct Job {
    /// The id of its request.
    pub(super) msg_id: MsgId,
    /// The fingerprint of `msg_id`.
    pub(super) print: Fingerprint,
    /// Who gets the reply; `None`: the hub alone.
    client: Option<ReplyTo>,
    /// The request as it came.
    pub(super) body: Body,
    /// What it needs of an engine: a key of the queues.
    pub(super) need: u32,
    /// Its number in the order of submission.
    pub(super) born: u64,
    /// Its place in the queues: a new one at the end, as far as its priority lets others be before it, each time it is
    /// queued again.
    pub(super) place: Place,
    /// How often it may still be tried again after a failure.
    pub(super) retries: u32,
    /// Where it is in its life.
    pub(super) state: State,
    /// When it came, was queued or was assigned, whichever was last. No two that are assigned have the same.
    pub(super) since: Instant,
    /// An earlier controller had it, and this one did not send it to any engine, nor heard from an engine that has it.
    pub(super) inherited: bool,
    /// Its bytes are those that an earlier controller may have sent: an engine that has had them drops them.
    pub(super) stale: bool,
    /// The ticket of its request, until that is on disk; `None`: it is, or need not be. The first ticket is 1.
    ticket: Option<NonZeroU64>,
    /// Of a task that is assigned: this controller sent it there in this life of the engine, so that there was room for it.
    pub(super) given: bool,
    /// Its times, and who waits for it.
    ties: Option<Box<Ties>>,
    /// What only some tasks have.
    pub(super) special: Option<Box<Special>>,
}

const _: () = assert!(size_of::<Job>() == 128, "a million of them fit beside their requests");

/// The identity of a client, in less room: that which a ROUTER gives has five bytes.
#[derive(Debug)]
enum ReplyTo {
    Short { length: u8, bytes: [u8; 14] },
    Long(Box<Identity>),
}

impl ReplyTo {
    fn new(client: &Identity) -> Self {
        let given = client.as_bytes();
        let mut bytes = [0; 14];
        match (bytes.get_mut(..given.len()), u8::try_from(given.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(given);
                Self::Short { length, bytes }
            }
            _ => Self::Long(Box::new(client.clone())),
        }
    }

    fn identity(&self) -> Identity {
        match self {
            Self::Short { length, bytes } => Identity::from(&bytes[..usize::from(*length)]),
            Self::Long(identity) => Identity::clone(identity),
        }
    }
}

/// What a task asked for that stock does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Which tasks come first.
    pub(super) priority: i32,
    /// It fails if no engine that is there could ever run it.
    pub(super) fail_unplaceable: bool,
    /// It may be tried again where it failed.
    pub(super) retry_anywhere: bool,
    /// How long it may run.
    pub(super) run_timeout: Option<Duration>,
    /// Whether and when it is started again: then it is a service.
    pub(super) restart: Option<Restart>,
}

impl Wishes {
    /// Those of the metadata of a request.
    pub(super) fn of(metadata: &TaskMetadata) -> Self {
        let Extras { priority, fail_unplaceable, retry_anywhere, restart, .. } = metadata.extras;
        Self { priority, fail_unplaceable, retry_anywhere, run_timeout: metadata.extras.run_timeout(), restart }
    }
}

/// How a task is tied to time and to other tasks. Most are not.
#[derive(Debug, Default)]
struct Ties {
    /// What stock does not know.
    wishes: Wishes,
    /// How long it may wait each time it is queued.
    timeout: Option<Duration>,
    /// While it waits or is ready, the end of `timeout`; while it backs off, its next start; while an engine that left has it,
    /// the end of the grace time; while one that is there has it, the end of the time that it may run, or to heed a signal.
    timer: Option<Timer>,
    /// Whether `timer` is the last of these.
    is_run_timer: bool,
    /// How many attempts at it ended under an earlier controller, at most.
    before: u32,
    /// How often in a row it was started again without running well in between.
    restarts_in_a_row: u32,
    /// Whether and how far it is to end. Only while an engine has it.
    stopping: Option<Box<Stopping>>,
    /// The live tasks that named this one in `after` or `follow`, in the order of submission: number and job.
    dependents: BTreeSet<(u64, u32)>,
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
    /// The engines where it failed and that may get it again, once for each of these attempts that is in `attempts`: not
    /// sorted.
    pub(super) again: Vec<u32>,
    /// How many such attempts are not in `attempts` any more.
    pub(super) forgotten: usize,
    /// The last of its attempts that ended, oldest first, for people who ask: no more than [`MAX_ATTEMPTS`], each on
    /// an engine of `blacklist` or of `again` or on `lost`.
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

impl Tried {
    /// Whether it was on this engine, and did not end in a way after which that never gets the task again.
    fn may_again(&self, engine: u32) -> bool {
        let gone = matches!(self.end, AttemptEnd::Died | AttemptEnd::Unmet | AttemptEnd::Lost);
        self.engine == engine && !gone
    }
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
        self.blacklist.len() + self.again.len() + usize::from(self.lost.is_some()) + self.forgotten
    }

    /// All engines whose references it is counted in.
    pub(super) fn engines(&self) -> impl Iterator<Item = u32> {
        let tried = self.blacklist.iter().chain(&self.again).chain(&self.lost);
        self.targets.iter().chain(tried).chain(&self.places).copied()
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

    /// Takes note of an attempt that ended, for people who ask. Returns the engine of another one that is forgotten and may
    /// get the task again; the caller has to drop its reference.
    pub(super) fn note_attempt(&mut self, tried: Tried) -> Option<u32> {
        let first = if self.attempts.len() == MAX_ATTEMPTS { Some(self.attempts.remove(0)) } else { None };
        self.attempts.push(tried);
        let at = self.again.iter().position(|engine| first.as_ref().is_some_and(|first| first.may_again(*engine)))?;
        self.forgotten += 1;
        Some(self.again.remove(at))
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
    /// A task that has just come, that asks for nothing, at the end of the queue.
    pub(super) fn new(
        (msg_id, print): (MsgId, Fingerprint),
        client: Option<&Identity>,
        body: Body,
        need: u32,
        (born, place): (u64, Place),
        now: Instant,
    ) -> Self {
        Self {
            msg_id,
            print,
            client: client.map(ReplyTo::new),
            body,
            need,
            born,
            place,
            retries: 0,
            state: State::Waiting,
            since: now,
            inherited: false,
            stale: false,
            ticket: None,
            given: false,
            ties: None,
            special: None,
        }
    }

    /// Who gets the reply; `None`: the hub alone.
    pub(super) fn client(&self) -> Option<Identity> {
        self.client.as_ref().map(ReplyTo::identity)
    }

    /// The ticket of its request, until that is on disk; `None`: it is, or need not be.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket.map(|ticket| Ticket(ticket.get()))
    }

    /// Sets [`Self::ticket`].
    pub(super) fn set_ticket(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket.map(|ticket| NonZeroU64::new(ticket.0).expect("the first ticket is 1"));
    }

    /// What it asked for that stock does not know.
    pub(super) fn wishes(&self) -> Wishes {
        self.ties.as_ref().map_or_else(Wishes::default, |ties| ties.wishes)
    }

    /// Sets [`Self::wishes`].
    pub(super) fn set_wishes(&mut self, wishes: Wishes) {
        if wishes != self.wishes() {
            self.ties.get_or_insert_default().wishes = wishes;
        }
    }

    /// The number of the next attempt, from 1: greater than that of any before.
    pub(super) fn next_attempt(&self) -> usize {
        1 + self.before() as usize + self.special.as_ref().map_or(0, |special| special.tried())
    }

    /// How long a service waits for its next start, having run for so long.
    pub(super) fn next_pause(&mut self, restart: &Restart, ran: Duration) -> Duration {
        let in_a_row = &mut self.ties.get_or_insert_default().restarts_in_a_row;
        if ran >= restart.reset_after() {
            *in_a_row = 0;
        }
        let pause = restart.backoff(*in_a_row);
        *in_a_row = in_a_row.saturating_add(1);
        pause
    }

    /// How many attempts at it ended under an earlier controller, at most.
    pub(super) fn before(&self) -> u32 {
        self.ties.as_ref().map_or(0, |ties| ties.before)
    }

    /// Sets [`Self::before`].
    pub(super) fn set_before(&mut self, attempts: u32) {
        if attempts > 0 {
            self.ties.get_or_insert_default().before = attempts;
        }
    }

    /// How long it may wait each time it is queued.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.ties.as_ref()?.timeout
    }

    /// Sets [`Self::timeout`].
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) {
        if timeout != self.timeout() {
            self.ties.get_or_insert_default().timeout = timeout;
        }
    }

    /// While it waits or is ready, the end of its timeout; while it backs off, its next start; while an engine that left has
    /// it, the end of the grace time.
    pub(super) fn timer(&self) -> Option<Timer> {
        self.ties.as_ref()?.timer
    }

    /// Sets [`Self::timer`], which there was none of.
    pub(super) fn set_timer(&mut self, timer: Timer) {
        let before = self.ties.get_or_insert_default().timer.replace(timer);
        assert_eq!(before, None, "task `{}` has two timers", self.msg_id);
    }

    /// Takes [`Self::timer`] away.
    pub(super) fn take_timer(&mut self) -> Option<Timer> {
        let ties = self.ties.as_mut()?;
        ties.is_run_timer = false;
        ties.timer.take()
    }

    /// Whether [`Self::timer`] is that of a task that runs on an engine which is there.
    pub(super) fn is_run_timer(&self) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.is_run_timer)
    }

    /// Says that [`Self::timer`], which there is, is that of a task that runs.
    pub(super) fn set_run_timer(&mut self) {
        self.ties.get_or_insert_default().is_run_timer = true;
    }

    /// Whether the grace time of the engine that has it runs.
    pub(super) fn is_stranded(&self) -> bool {
        self.timer().is_some() && !self.is_run_timer()
    }

    /// Whether and how far it is to end.
    pub(super) fn stopping(&self) -> Option<&Stopping> {
        self.ties.as_ref()?.stopping.as_deref()
    }

    /// The same, to be changed.
    pub(super) fn stopping_mut(&mut self) -> Option<&mut Stopping> {
        self.ties.as_mut()?.stopping.as_deref_mut()
    }

    /// It is to end.
    pub(super) fn set_stopping(&mut self, stopping: Stopping) {
        self.ties.get_or_insert_default().stopping = Some(Box::new(stopping));
    }

    /// It is not to end any more.
    pub(super) fn take_stopping(&mut self) -> Option<Stopping> {
        self.ties.as_mut()?.stopping.take().map(|stopping| *stopping)
    }

    /// The live tasks that named this one in `after` or `follow`, in the order of submission: number and job.
    pub(super) fn dependents(&self) -> impl Iterator<Item = (u64, u32)> {
        self.ties.iter().flat_map(|ties| &ties.dependents).copied()
    }

    /// Whether this one is among [`Self::dependents`].
    pub(super) fn has_dependent(&self, dependent: (u64, u32)) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.dependents.contains(&dependent))
    }

    /// Adds to [`Self::dependents`].
    pub(super) fn hook(&mut self, dependent: (u64, u32)) {
        self.ties.get_or_insert_default().dependents.insert(dependent);
    }

    /// Takes one out of [`Self::dependents`].
    pub(super) fn unhook(&mut self, dependent: (u64, u32)) {
        if let Some(ties) = &mut self.ties {
            ties.dependents.remove(&dependent);
        }
    }

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
        self.ticket.is_none() && self.has_what_it_named()
    }

    /// Whether what it waits for has happened, on disk or not.
    pub(super) fn has_what_it_named(&self) -> bool {
        self.special.as_ref().is_none_or(|special| special.after.is_met() && special.follow.is_met())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_again_however_long_its_identity() {
        for length in 0..40 {
            let identity = Identity::from(&[7; 40][..length]);
            assert_eq!(ReplyTo::new(&identity).identity(), identity);
        }
    }
}
