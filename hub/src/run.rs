//! The sockets of the hub and of the heart monitor. What to do is decided by their machines.

mod records;
#[cfg(feature = "sqlite")]
mod store_thread;

use std::ops::ControlFlow;
use std::time::Duration;

use remuda_net::{Driver, Input, Outbox, Received, RefusalCounts, Refusals, Sender, Socket, Unsent};
use remuda_proto::message::native::Capability;
use remuda_proto::monitor::{Monitor, Queue, Ticket};
use remuda_proto::{Body, EngineId, EngineUuid, Identity, MsgId, Now};

use crate::engine_state::{EngineState, Grant};
use crate::heart::{self, HeartMonitor};
use crate::hub::{self, Hub};

pub use records::{Job, Records};
#[cfg(feature = "sqlite")]
pub use store_thread::StoreThread;

impl From<Monitor> for hub::Event {
    fn from(seen: Monitor) -> Self {
        Self::Monitor(seen)
    }
}

/// What the hub has to say to the other parts of the controller.
#[derive(Clone, Debug)]
pub enum News {
    /// An engine is registered.
    Joined {
        /// Its uuid.
        uuid: EngineUuid,
        /// Its id.
        id: EngineId,
        /// What it can run.
        capability: Capability,
    },
    /// An engine is gone.
    Left {
        /// Its uuid.
        uuid: EngineUuid,
    },
    /// A request of the hub's own, for the task scheduler.
    Resubmit {
        /// Its id.
        msg_id: MsgId,
        /// The request.
        body: Body,
    },
    /// An engine gets no more tasks, by the request of this number, or it does again: for the task scheduler.
    Drain {
        /// The engine.
        uuid: EngineUuid,
        /// The number of the request.
        request: Option<u64>,
    },
    /// A request for an engine or its nanny, of the task scheduler's or of the hub's own: for the control relay.
    Signal {
        /// The engine.
        engine: EngineUuid,
        /// The request.
        body: Body,
    },
    /// A question: for the task scheduler, and if all is asked for, for the heart monitor and about the drivers.
    Explain {
        /// Number of the question.
        question: u64,
        /// The tasks that it is about.
        msg_ids: Vec<MsgId>,
        /// Whether all is asked for.
        whole: bool,
    },
    /// An id that is being given to an engine, to be kept for the next controller now.
    Granted(Grant),
    /// Which engines are registered, to be kept for the next controller in the place of all that was kept before.
    Engines(EngineState),
    /// This heart should beat soon.
    ExpectHeart(EngineUuid),
    /// This heart is of no interest any more.
    ForgetHeart(EngineUuid),
    /// What a scheduler reported up to there is on record, as far as it can be.
    Committed {
        /// Which scheduler.
        queue: Queue,
        /// The last of its reports.
        ticket: Ticket,
    },
}

/// Drives a [`Hub`]: queries come on a ROUTER, notifications leave on a PUB.
pub struct HubDriver<F> {
    /// The ROUTER.
    query: [Socket; 1],
    /// What waits for peers that ask and do not read.
    replies: Outbox,
    notification: Socket,
    /// Takes the news to the schedulers and the heart monitor.
    tell: F,
    refusals: Refusals,
    /// The task records.
    records: Records,
    /// The hub's own mailbox, for answers from the records.
    answers: Sender<hub::Event>,
}

impl<F: FnMut(News)> HubDriver<F> {
    /// A driver over sockets that are bound. `answers` ends in the hub's own mailbox.
    pub fn new(
        query: Socket,
        notification: Socket,
        unsent: Unsent,
        (records, answers): (Records, Sender<hub::Event>),
        tell: F,
    ) -> Self {
        let name = "registration";
        let (replies, refusals) = (Outbox::new(name, unsent), Refusals::new(name));
        Self { query: [query], replies, notification, tell, refusals, records, answers }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { refusals: self.refusals.counted_in(counts), ..self }
    }
}

/// How often the hub looks for what the schedulers saw, while there is something. They report three things a task, and
/// waking the hub for each would cost more than what it does with them.
const NAP: Duration = Duration::from_millis(2);

impl<F: FnMut(News)> Driver for HubDriver<F> {
    type Machine = Hub;

    fn nap(&self) -> Duration {
        NAP
    }

    fn sockets(&self) -> &[Socket] {
        &self.query
    }

    fn patience(&self) -> Option<Duration> {
        self.replies.patience()
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<hub::Event> {
        match self.query[index].receive() {
            None => Input::None,
            Some(Received::Message(frames)) => {
                Input::Event(hub::Event::Query { from: frames.idents, body: frames.body })
            }
            Some(Received::Garbage { sender, error }) => {
                self.refusals.note(sender.as_ref(), &error.into());
                Input::Dropped
            }
        }
    }

    fn before_perform(&mut self, effects: &mut Vec<hub::Effect>) {
        self.replies.flush(&self.query[0]);
        let mut jobs = Vec::new();
        // Collected in place: no effect is moved to another allocation.
        *effects = std::mem::take(effects)
            .into_iter()
            .filter_map(|effect| match effect {
                hub::Effect::Store(write) => {
                    jobs.push(Job::Write(write));
                    None
                }
                hub::Effect::Ask { question, ask } => {
                    jobs.push(Job::Ask { question, ask });
                    None
                }
                other => Some(other),
            })
            .collect();
        if !jobs.is_empty() {
            let (answers, tell) = (&self.answers, &mut self.tell);
            let committed = |queue, ticket| tell(News::Committed { queue, ticket });
            self.records.hand_over(jobs, |answer| answers.send(answer), committed);
        }
    }

    fn perform(&mut self, effect: hub::Effect) -> ControlFlow<()> {
        match effect {
            hub::Effect::Joined { uuid, id, capability } => (self.tell)(News::Joined { uuid, id, capability }),
            hub::Effect::Left { uuid, .. } => (self.tell)(News::Left { uuid }),
            hub::Effect::ForgetHeart(uuid) => (self.tell)(News::ForgetHeart(uuid)),
            hub::Effect::ExpectHeart(uuid) => (self.tell)(News::ExpectHeart(uuid)),
            hub::Effect::Resubmit { msg_id, body } => (self.tell)(News::Resubmit { msg_id, body }),
            hub::Effect::Drain { uuid, request } => (self.tell)(News::Drain { uuid, request }),
            hub::Effect::Signal { engine, body } => (self.tell)(News::Signal { engine, body }),
            hub::Effect::Explain { question, msg_ids, whole } => {
                (self.tell)(News::Explain { question, msg_ids, whole });
            }
            hub::Effect::KeepGrant(grant) => (self.tell)(News::Granted(grant)),
            hub::Effect::SaveEngines(state) => (self.tell)(News::Engines(state)),
            hub::Effect::StoreFailed(error) => {
                tracing::error!("{error}: requests that were given up have no reply on record");
            }
            hub::Effect::Store(_) | hub::Effect::Ask { .. } => panic!("these were taken out before"),
            hub::Effect::Reply { to, body } => {
                self.replies.send(&self.query[0], to.iter(), &body);
            }
            hub::Effect::Notify(body) => {
                self.notification.send([], &body);
            }
            hub::Effect::Refused { from, refusal } => self.refusals.note(from.as_ref(), &refusal),
            hub::Effect::Exit => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

/// Drives a [`HeartMonitor`]: pings leave on a PUB, pongs come on a ROUTER.
pub struct HeartDriver<F> {
    ping: Socket,
    /// The ROUTER.
    pong: [Socket; 1],
    /// Takes what hearts do to the hub.
    tell: F,
    refusals: Refusals,
}

impl<F: FnMut(hub::Event)> HeartDriver<F> {
    /// A driver over sockets that are bound.
    pub fn new(ping: Socket, pong: Socket, tell: F) -> Self {
        Self { ping, pong: [pong], tell, refusals: Refusals::new("heartbeat") }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { refusals: self.refusals.counted_in(counts), ..self }
    }
}

impl<F: FnMut(hub::Event)> Driver for HeartDriver<F> {
    type Machine = HeartMonitor;

    fn sockets(&self) -> &[Socket] {
        &self.pong
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<heart::Event> {
        let Some(mut frames) = self.pong[index].receive_raw() else { return Input::None };
        let sender = frames.first().map(|frame| Identity::from(&frame[..]));
        match (sender, frames.len()) {
            (Some(heart), 2) => Input::Event(heart::Event::Pong { heart, payload: frames.swap_remove(1) }),
            (sender, count) => {
                let error = remuda_proto::FrameError::NoDelimiter { frames: count };
                self.refusals.note(sender.as_ref(), &error.into());
                Input::Dropped
            }
        }
    }

    fn perform(&mut self, effect: heart::Effect) -> ControlFlow<()> {
        match effect {
            heart::Effect::Ping(payload) => {
                self.ping.send_raw(&[payload]);
            }
            heart::Effect::NewHearts(hearts) => (self.tell)(hub::Event::NewHearts(hearts)),
            heart::Effect::StoppedHearts(hearts) => (self.tell)(hub::Event::StoppedHearts(hearts)),
            heart::Effect::Explained { question, hearts } => (self.tell)(hub::Event::Hearts { question, hearts }),
            heart::Effect::Refused { from, refusal } => self.refusals.note(Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }
}
