//! The task scheduler: picks an engine for each task (`controller/task_scheduler.py: TaskScheduler`).

mod answer;
mod check;
mod config;
mod drain;
mod engines;
mod explain;
mod fenwick;
mod graph;
mod job;
mod known;
mod lifecycle;
mod place;
mod placement;
mod queues;
mod room;
mod service;
mod stopping;
mod takeover;
#[cfg(test)]
mod tests;

pub use config::{Scheme, TaskConfig, UnknownScheme};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use remuda_proto::message::native::Capability;
use remuda_proto::monitor::{IntakeLimit, Monitor, Ticket};
use remuda_proto::recovery::Recovery;
use remuda_proto::{Body, EngineUuid, Identity, Instant, Machine, MsgId, Now, Refusal, Session};

use self::answer::Failure;
use self::engines::Engines;
use self::job::{Job, State, Timer};
use self::known::KnownTasks;
use self::place::{Ageing, Place};
use self::queues::Queues;
use self::takeover::Takeover;
use crate::slab::Slab;
use crate::ticket::Withheld;

/// All that can happen to the task scheduler.
#[derive(Clone, Debug)]
pub enum TaskEvent {
    /// A client sent a task.
    Submit {
        /// The client, as the socket of clients names it.
        client: Identity,
        /// The request, not yet verified.
        body: Body,
    },
    /// The hub repeats a task. There is no client: its reply is for the hub, which knows of the request already.
    Resubmit {
        /// Its id.
        msg_id: MsgId,
        /// The request.
        body: Body,
    },
    /// An engine sent something, which should be the reply to a task.
    Result {
        /// The engine, as the socket of engines names it.
        engine: Identity,
        /// The next routing frame: the client that the engine believes it answers. The reply goes to the client that
        /// submitted the task, whatever stands here.
        client: Identity,
        /// The reply, not yet verified.
        body: Body,
    },
    /// What an earlier controller left: before anything else.
    Recover(Box<Recovery>),
    /// An engine is there. A second time means nothing, until it unregisters.
    Registered {
        /// The engine.
        uuid: EngineUuid,
        /// What it can run.
        capability: Capability,
    },
    /// An engine is gone. Means nothing if it was not there.
    Unregistered {
        /// The engine.
        uuid: EngineUuid,
    },
    /// An engine gets no more tasks, or it does again. When it has none left, the hub hears of it ([`Monitor::Drained`]). Means
    /// nothing if it is not there.
    Drain {
        /// The engine.
        uuid: EngineUuid,
        /// The number of the request; `None`: it gets tasks again.
        request: Option<u64>,
    },
    /// What was sent to an engine never reached it, since it does not read. The task is tried elsewhere.
    Undelivered {
        /// The engine.
        engine: Identity,
        /// The request as it was sent.
        body: Body,
    },
    /// Tasks are not wanted any more. Those that wait or are ready are answered `aborted` at once; unknown ones mean nothing.
    Abort {
        /// The tasks.
        msg_ids: Vec<MsgId>,
        /// Whether those that an engine has are to end; else they are its business.
        stop: bool,
    },
    /// A nanny did as a [`Monitor::Signal`] says.
    Signalled {
        /// The id of the request.
        msg_id: MsgId,
    },
    /// All reports up to this one are on disk. Only with [`Durability::Sync`](remuda_proto::monitor::Durability::Sync).
    Committed {
        /// The last of them that had a ticket.
        ticket: Ticket,
    },
    /// The hub asks what these tasks wait for, and perhaps how everything stands. Changes nothing, and is answered at
    /// once, by a [`Monitor::Explained`].
    ///
    /// Costs some thousand steps for each task at most, and as many steps as a task names engines; with `whole`, a step
    /// for each engine.
    Explain {
        /// Number of the question.
        question: u64,
        /// The tasks; ids that are not known are no error.
        msg_ids: Vec<MsgId>,
        /// Whether the state of the scheduler is wanted, too.
        whole: bool,
    },
}

/// All that the task scheduler can ask for.
#[derive(Clone, Debug)]
pub enum TaskEffect {
    /// Send a task to an engine: `[engine][client]` and the body as it came, signature and all.
    ToEngine {
        /// The engine.
        engine: Identity,
        /// The client.
        client: Identity,
        /// The request.
        body: Body,
    },
    /// Send the one reply to a task: `[client][engine]`, or only `[client]`, and the body. Not for tasks of the hub.
    ToClient {
        /// The client.
        client: Identity,
        /// The engine that it comes from, or is said to come from; `None` for what the scheduler says itself, and with
        /// scheme `pure`.
        engine: Option<Identity>,
        /// The reply.
        body: Body,
    },
    /// Tell the hub.
    Monitor(Monitor),
    /// A message had no effect: log and count it.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
    /// Read no more from clients, until [`Self::ResumeIntake`], since this limit is reached. What comes all the same is
    /// accepted.
    PauseIntake(IntakeLimit),
    /// Read from clients again.
    ResumeIntake,
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for others, by `after` or `follow`, or until they are on disk; and services that are between two
    /// attempts.
    pub waiting: usize,
    /// Tasks that wait only for an engine, held ones included.
    pub ready: usize,
    /// Tasks that an engine has, stranded ones included.
    pub assigned: usize,
}

impl Counts {
    /// All tasks without a final reply.
    pub fn total(self) -> usize {
        self.waiting + self.ready + self.assigned
    }
}

impl Counts {
    /// The count of tasks in this state; none for states that last no longer than an event.
    fn of(&mut self, state: State) -> Option<&mut usize> {
        match state {
            State::Waiting | State::BackingOff => Some(&mut self.waiting),
            State::Ready | State::Held => Some(&mut self.ready),
            State::Assigned { .. } => Some(&mut self.assigned),
            State::Fresh | State::Doomed => None,
        }
    }

    fn enter(&mut self, state: State) {
        self.of(state).into_iter().for_each(|count| *count += 1);
    }

    fn leave(&mut self, state: State) {
        self.of(state).into_iter().for_each(|count| *count -= 1);
    }
}

/// Picks an engine for each task, and sees to it that each gets exactly one final reply.
///
/// A task waits for those that it names in `after` and `follow`, then stands in line for an engine that may and can run it
/// and has room, then is with that engine until its reply comes. It is tried again elsewhere when the engine could not
/// run it, or when it failed and has retries left; no engine gets it twice, unless it was lost with a controller. What it asks for in vain is answered with an
/// error, as by a stock scheduler; where stock would leave the client waiting for ever, there is an error too:
///
/// - malformed metadata: `InvalidDependency` for `after` and `follow`, `ValueError` for the rest;
/// - targets, or places to follow to, of which none is there and can run the task: `ImpossibleDependency`, at once.
///
/// After the controller died, another one takes over what is on record ([`TaskEvent::Recover`]). Engines that come back
/// are asked what they have, before they get any task; a task that none of them has is tried again, whatever its retries.
/// Until all have answered or [`TaskConfig::reattach`] is over, tasks that no engine had on record are held, since the
/// records may lack the last moments: a result of one counts, whichever engine it comes from. Then they are placed in the
/// order in which they came. New tasks are placed as always; those that only engines may run which are to come back wait
/// for these.
///
/// A service ([`Restart`](remuda_proto::message::restart::Restart)) is a task that is started again when it ends, on any engine
/// that can run it, as its policy says: after a pause that doubles each time, until it has run well for a while. When its
/// engine dies it goes to another at once. Only what concludes it is answered: an end after which it is not started again.
///
/// A task on a Python engine that runs for longer than its `run_timeout`, or that somebody wants to end, is interrupted by
/// the engine's nanny, and its engine ended if that does not help. (On a native engine that is the engine's business.)
///
/// Two things still wait without end, unless the task has a timeout: a task that needs what no engine has, and one
/// that all engines have tried; a new engine may come.
///
/// Of two tasks that the same engine may run, it gets the one of higher priority first, of equals the older. A task that is
/// tried again goes to the end of those of its priority. A task gains a level of priority for each
/// [`TaskConfig::priority_age`] that it waits.
///
/// An engine has so many slots, and perhaps other resources, each of which it may be given `hwm` times; a task takes one
/// slot, or what it asks for. When the first task that an engine may run takes more than is free there, what it takes
/// is *reserved*: later tasks get only what is left beside it. A task reserves on one engine, an engine for one task.
///
/// Each event costs O(log n) in engines and in tasks, and something for each task that it moves.
#[derive(Debug)]
pub struct TaskScheduler {
    /// What was asked for.
    config: TaskConfig,
    /// Verifies what comes, signs what the scheduler itself says.
    session: Session,
    /// All tasks without a final reply.
    jobs: Slab<Box<Job>>,
    /// The live tasks of `jobs` and the finished ones that are remembered.
    known: KnownTasks,
    /// All engines that are there, or that a task names, tried or ran on.
    engines: Engines,
    /// The ready ones of `jobs`, but for those in queues of engines.
    queues: Queues,
    /// The signals that no nanny has confirmed, by their request, and the tasks that they are to end.
    signals: BTreeMap<MsgId, u32>,
    /// The timers of `jobs`, one for each at most.
    timers: BTreeMap<Timer, u32>,
    /// Tasks that became ready in this event, by place, some of which were doomed later in it; empty between events.
    fresh: BinaryHeap<Reverse<(Place, u32)>>,
    /// Engines that something became free on in this event; empty between events.
    freed: Vec<u32>,
    /// The same while all that is due at one moment is dealt with, of which nothing is placed before the end. Each counts as
    /// a use of its engine.
    due: Option<Vec<u32>>,
    /// Scratch space for the first queued tasks that an engine may run.
    heads: Vec<(Place, u32)>,
    /// Tasks to answer in this event, and why; empty between events.
    doomed: VecDeque<(u32, Failure)>,
    /// What is not settled yet of an earlier controller.
    takeover: Option<Box<Takeover>>,
    /// What waits until a report is on disk, so that nothing is seen that a crash could undo.
    withheld: Withheld<Unrecorded>,
    /// Scratch space for the engines that a task may go to.
    allowed: Vec<u32>,
    /// When the last task was given to an engine: no two have the same time.
    last_given: Option<Instant>,
    /// How priorities count.
    ageing: Ageing,
    /// Number of the next task, and of the next one queued again: never used twice, always growing.
    next_seq: u64,
    /// Number of the next timer.
    next_timer: u64,
    /// How many of `jobs` are in which state.
    counts: Counts,
    /// Size of the requests of `jobs`.
    pending_bytes: usize,
    /// Whether intake is paused: `pending_bytes` or the number of jobs reached a limit, and did not yet fall to three
    /// quarters of it.
    paused: bool,
    /// Steps taken so far, each O(log n) at most: for tests of cost.
    work: u64,
}

/// What waits until its report is on disk.
#[derive(Debug)]
enum Unrecorded {
    /// A task, which is not sent to an engine before: its job, unless that has ended, and its ticket.
    Task(u32, Ticket),
    /// A reply to a client.
    Reply(TaskEffect),
}

/// What the handling of one event needs everywhere.
struct Step<'a> {
    now: Now,
    out: &'a mut Vec<TaskEffect>,
}

impl TaskScheduler {
    /// A scheduler that knows no engine and no task yet.
    pub fn new(config: TaskConfig, session: Session) -> Self {
        Self {
            session,
            jobs: Slab::new(),
            known: KnownTasks::new(config.max_finished_ids),
            engines: Engines::new(config.scheme, config.hwm, config.seed),
            queues: Queues::new(),
            signals: BTreeMap::new(),
            timers: BTreeMap::new(),
            fresh: BinaryHeap::new(),
            freed: Vec::new(),
            due: None,
            heads: Vec::new(),
            doomed: VecDeque::new(),
            takeover: None,
            withheld: Withheld::new(config.durability),
            allowed: Vec::new(),
            last_given: None,
            ageing: Ageing::new(config.priority_age),
            next_seq: 0,
            next_timer: 0,
            counts: Counts::default(),
            pending_bytes: 0,
            paused: false,
            work: 0,
            config,
        }
    }

    /// How it was set up.
    pub fn config(&self) -> &TaskConfig {
        &self.config
    }

    /// How many tasks are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tasks have no final reply yet.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether every task had its final reply.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every task had its final reply and nothing is kept for any, but for the ids of finished ones.
    pub fn is_idle(&self) -> bool {
        let queued = self.queues.iter().any(|(_, queue)| queue.jobs > 0);
        self.is_empty() && self.timers.is_empty() && self.pending_bytes == 0 && !queued && self.withheld.len() == 0
    }

    /// Size of the requests of all tasks without a final reply, in bytes.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether intake is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// How many finished tasks are remembered.
    pub fn finished_ids(&self) -> usize {
        self.known.finished()
    }

    /// How many engines are there.
    pub fn engine_count(&self) -> usize {
        self.engines.live()
    }

    /// The engines that are there, and how many tasks each has.
    pub fn loads(&self) -> impl Iterator<Item = (&EngineUuid, usize)> {
        let live = self.engines.iter().filter(|(_, engine)| engine.member.is_some());
        live.map(|(_, engine)| (&engine.uuid, engine.running.len()))
    }

    /// Steps taken so far, each O(log n) at most in engines and tasks: for tests of cost.
    pub fn work(&self) -> u64 {
        self.work + self.engines.work
    }
}

impl Machine for TaskScheduler {
    type Event = TaskEvent;
    type Effect = TaskEffect;

    fn handle(&mut self, now: Now, event: TaskEvent, out: &mut Vec<TaskEffect>) {
        let step = &mut Step { now, out };
        match event {
            TaskEvent::Submit { client, body } => {
                if let Err(refusal) = self.submit(Some(&client), body, step) {
                    step.out.push(TaskEffect::Refused { from: client, refusal });
                }
            }
            TaskEvent::Resubmit { msg_id, body } => {
                if let Err(refusal) = self.submit(None, body.clone(), step) {
                    self.refuse_hub(msg_id, &body, refusal, step);
                }
            }
            TaskEvent::Result { engine, body, .. } => {
                if let Err(refusal) = self.take_result(&engine, body, step) {
                    step.out.push(TaskEffect::Refused { from: engine, refusal });
                }
            }
            TaskEvent::Recover(recovery) => self.recover(*recovery, step),
            TaskEvent::Registered { uuid, capability } => self.register(&uuid, capability, step),
            TaskEvent::Unregistered { uuid } => self.unregister(&uuid, step),
            TaskEvent::Drain { uuid, request } => self.drain(&uuid, request, step),
            TaskEvent::Undelivered { engine, body } => self.undelivered(&engine, &body, step),
            TaskEvent::Abort { msg_ids, stop } => self.abort(&msg_ids, stop, step),
            TaskEvent::Signalled { msg_id } => self.signalled(&msg_id, step),
            TaskEvent::Committed { ticket } => self.committed(ticket, step),
            TaskEvent::Explain { question, msg_ids, whole } => {
                let explanation = self.explain(now, question, &msg_ids, whole);
                step.out.push(TaskEffect::Monitor(Monitor::Explained(Box::new(explanation))));
            }
        }
        self.watch_intake(step);
    }

    fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        match &self.takeover {
            None => timer,
            Some(takeover) => timer.into_iter().chain(takeover.deadline()).min(),
        }
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<TaskEffect>) {
        let step = &mut Step { now, out };
        self.due = Some(Vec::new());
        while let Some((&(at, _), &key)) = self.timers.first_key_value()
            && at <= now.instant
        {
            self.time_is_up(key, step);
        }
        self.settle_due(step);
        if self.takeover.is_some() {
            self.takeover_is_due(step);
        }
        self.watch_intake(step);
    }

    fn check(&self) {
        self.check_all();
    }
}
