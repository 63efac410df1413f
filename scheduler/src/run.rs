//! The sockets of the schedulers. What to do is decided by their machines.

use std::ops::ControlFlow;
use std::time::Duration;

use remuda_net::{Driver, Input, Received, RefusalCounts, Refusals, Sender, Socket};
use remuda_proto::monitor::Monitor;
use remuda_proto::{Frames, Identity, MsgId, Now, Refusal};

use crate::broadcast::{Broadcast, BroadcastEffect, BroadcastEvent};
use crate::relay::{OutputEffect, OutputEvent, OutputRelay, Relay, RelayEffect, RelayEvent};
use crate::task::{TaskEffect, TaskEvent, TaskScheduler};

/// How many messages the hub may be behind before clients are not read any more. At some 2 kB a message the hub holds
/// less than 200 MB of what it has not seen yet.
pub const HUB_LAG_LIMIT: usize = 100_000;
/// How soon to look again whether the hub has caught up.
const LAG_PATIENCE: Duration = Duration::from_millis(2);

/// The index of the socket towards clients.
const CLIENTS: usize = 0;
/// The index of the socket towards engines.
const ENGINES: usize = 1;

/// Whom an effect is for.
enum For<F> {
    Hub(Monitor),
    Peers(F),
}

/// The way to the hub, with a limit on how far it may fall behind.
pub struct MonitorLink<E>(Sender<E>);

impl<E: From<Monitor>> MonitorLink<E> {
    /// A link that ends in the hub's mailbox.
    pub fn new(hub: Sender<E>) -> Self {
        Self(hub)
    }

    /// Tells the hub what is to be told among the effects of a turn, all at once, before anything is sent: so the hub knows
    /// of a request before its engine can have it. What is for others stays, in order.
    fn tell<F>(&self, effects: &mut Vec<F>, sort: fn(F) -> For<F>) {
        let mut told = Vec::with_capacity(effects.len());
        // Collected in place: no effect is moved to another allocation.
        *effects = std::mem::take(effects)
            .into_iter()
            .filter_map(|effect| match sort(effect) {
                For::Peers(effect) => Some(effect),
                For::Hub(seen) => {
                    told.push(E::from(seen));
                    None
                }
            })
            .collect();
        self.0.send_all(told.into_iter());
    }

    fn lags(&self) -> bool {
        self.0.lag() > HUB_LAG_LIMIT
    }
}

/// Two ROUTERs, one towards clients and one towards engines.
struct Sides {
    sockets: [Socket; 2],
    refusals: [Refusals; 2],
}

impl Sides {
    fn new(clients: Socket, engines: Socket, name: [&'static str; 2]) -> Self {
        Self { sockets: [clients, engines], refusals: name.map(Refusals::new) }
    }

    fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { refusals: self.refusals.map(|refusals| refusals.counted_in(counts)), ..self }
    }

    /// The next message from one side: who sent it, and the rest.
    fn receive(&mut self, side: usize) -> Input<(Identity, Frames)> {
        match self.sockets[side].receive() {
            None => Input::None,
            Some(Received::Message(mut frames)) if !frames.idents.is_empty() => {
                let sender = frames.idents.remove(0);
                Input::Event((sender, frames))
            }
            Some(Received::Message(_)) => {
                self.refuse(side, None, &Refusal::NoTarget);
                Input::Dropped
            }
            Some(Received::Garbage { sender, error }) => {
                self.refuse(side, sender.as_ref(), &error.into());
                Input::Dropped
            }
        }
    }

    fn refuse(&mut self, side: usize, from: Option<&Identity>, refusal: &Refusal) {
        self.refusals[side].note(from, refusal);
    }
}

/// Drives a [`TaskScheduler`].
pub struct TaskDriver<E> {
    sides: Sides,
    monitor: MonitorLink<E>,
    /// Whether the machine wants nothing from clients for now.
    paused: bool,
}

impl<E: From<Monitor>> TaskDriver<E> {
    /// A driver over ROUTERs that are bound.
    pub fn new(clients: Socket, engines: Socket, monitor: MonitorLink<E>) -> Self {
        Self { sides: Sides::new(clients, engines, ["task", "task (engines)"]), monitor, paused: false }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { sides: self.sides.counted_in(counts), ..self }
    }
}

impl<E: From<Monitor>> Driver for TaskDriver<E> {
    type Machine = TaskScheduler;

    fn sockets(&self) -> &[Socket] {
        &self.sides.sockets
    }

    fn reads(&self, index: usize) -> bool {
        index == ENGINES || !(self.paused || self.monitor.lags())
    }

    fn patience(&self) -> Option<Duration> {
        self.monitor.lags().then_some(LAG_PATIENCE)
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<TaskEvent> {
        let (sender, mut frames) = match self.sides.receive(index) {
            Input::Event(message) => message,
            Input::None => return Input::None,
            Input::Dropped => return Input::Dropped,
        };
        if index == CLIENTS {
            return Input::Event(TaskEvent::Submit { client: sender, body: frames.body });
        }
        if frames.idents.is_empty() {
            self.sides.refuse(index, Some(&sender), &Refusal::NoTarget);
            return Input::Dropped;
        }
        Input::Event(TaskEvent::Result { engine: sender, client: frames.idents.remove(0), body: frames.body })
    }

    fn perform(&mut self, effect: TaskEffect) -> ControlFlow<()> {
        match effect {
            TaskEffect::ToEngine { engine, client, body } => {
                self.sides.sockets[ENGINES].send([&engine, &client], &body);
            }
            TaskEffect::ToClient { client, engine, body } => {
                self.sides.sockets[CLIENTS].send([&client].into_iter().chain(&engine), &body);
            }
            TaskEffect::Monitor(seen) => self.monitor.0.send(E::from(seen)),
            TaskEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
            TaskEffect::PauseIntake => {
                tracing::warn!(
                    "the limit on pending tasks is reached: reading no more from clients until there is room"
                );
                self.paused = true;
            }
            TaskEffect::ResumeIntake => {
                tracing::info!("reading from clients again");
                self.paused = false;
            }
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<TaskEffect>) {
        self.monitor.tell(effects, |effect| match effect {
            TaskEffect::Monitor(seen) => For::Hub(seen),
            other => For::Peers(other),
        });
    }
}

/// Drives a [`Relay`]: the direct queue, or the control queue.
pub struct RelayDriver<E, A> {
    sides: Sides,
    monitor: MonitorLink<E>,
    /// Takes the ids of tasks that a client wants aborted to the task scheduler.
    abort: A,
}

impl<E: From<Monitor>, A: FnMut(Vec<MsgId>)> RelayDriver<E, A> {
    /// A driver over ROUTERs that are bound. `names` are those of the client's and the engine's side, for the log.
    pub fn new(clients: Socket, engines: Socket, names: [&'static str; 2], monitor: MonitorLink<E>, abort: A) -> Self {
        Self { sides: Sides::new(clients, engines, names), monitor, abort }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { sides: self.sides.counted_in(counts), ..self }
    }
}

impl<E: From<Monitor>, A: FnMut(Vec<MsgId>)> Driver for RelayDriver<E, A> {
    type Machine = Relay;

    fn sockets(&self) -> &[Socket] {
        &self.sides.sockets
    }

    fn reads(&self, index: usize) -> bool {
        index == ENGINES || !self.monitor.lags()
    }

    fn patience(&self) -> Option<Duration> {
        self.monitor.lags().then_some(LAG_PATIENCE)
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<RelayEvent> {
        match self.sides.receive(index) {
            Input::Event((client, frames)) if index == CLIENTS => {
                Input::Event(RelayEvent::FromClient { client, frames })
            }
            Input::Event((engine, frames)) => Input::Event(RelayEvent::FromEngine { engine, frames }),
            Input::None => Input::None,
            Input::Dropped => Input::Dropped,
        }
    }

    fn perform(&mut self, effect: RelayEffect) -> ControlFlow<()> {
        match effect {
            RelayEffect::ToEngine { engine, idents, body } => {
                self.sides.sockets[ENGINES].send([&engine].into_iter().chain(&idents), &body);
            }
            RelayEffect::ToClient { client, idents, body } => {
                self.sides.sockets[CLIENTS].send([&client].into_iter().chain(&idents), &body);
            }
            RelayEffect::Monitor(seen) => self.monitor.0.send(E::from(seen)),
            RelayEffect::Abort { msg_ids } => (self.abort)(msg_ids),
            RelayEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<RelayEffect>) {
        self.monitor.tell(effects, |effect| match effect {
            RelayEffect::Monitor(seen) => For::Hub(seen),
            other => For::Peers(other),
        });
    }
}

/// Drives a [`Broadcast`].
pub struct BroadcastDriver<E> {
    sides: Sides,
    monitor: MonitorLink<E>,
}

impl<E: From<Monitor>> BroadcastDriver<E> {
    /// A driver over ROUTERs that are bound.
    pub fn new(clients: Socket, engines: Socket, monitor: MonitorLink<E>) -> Self {
        Self { sides: Sides::new(clients, engines, ["broadcast", "broadcast (engines)"]), monitor }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { sides: self.sides.counted_in(counts), ..self }
    }
}

impl<E: From<Monitor>> Driver for BroadcastDriver<E> {
    type Machine = Broadcast;

    fn sockets(&self) -> &[Socket] {
        &self.sides.sockets
    }

    fn reads(&self, index: usize) -> bool {
        index == ENGINES || !self.monitor.lags()
    }

    fn patience(&self) -> Option<Duration> {
        self.monitor.lags().then_some(LAG_PATIENCE)
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<BroadcastEvent> {
        match self.sides.receive(index) {
            Input::Event((client, frames)) if index == CLIENTS => {
                Input::Event(BroadcastEvent::FromClient { client, body: frames.body })
            }
            Input::Event((engine, Frames { idents, body })) => {
                Input::Event(BroadcastEvent::FromEngine { engine, idents, body })
            }
            Input::None => Input::None,
            Input::Dropped => Input::Dropped,
        }
    }

    fn perform(&mut self, effect: BroadcastEffect) -> ControlFlow<()> {
        match effect {
            BroadcastEffect::ToEngine { engine, client, body } => {
                self.sides.sockets[ENGINES].send([&engine, &client], &body);
            }
            BroadcastEffect::ToClient { client, body } => {
                self.sides.sockets[CLIENTS].send([&client], &body);
            }
            BroadcastEffect::Monitor(seen) => self.monitor.0.send(E::from(seen)),
            BroadcastEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<BroadcastEffect>) {
        self.monitor.tell(effects, |effect| match effect {
            BroadcastEffect::Monitor(seen) => For::Hub(seen),
            other => For::Peers(other),
        });
    }
}

/// Drives an [`OutputRelay`]: a SUB towards engines, a PUB towards clients.
pub struct OutputDriver<E> {
    /// The SUB.
    engines: [Socket; 1],
    clients: Socket,
    monitor: MonitorLink<E>,
    refusals: Refusals,
}

impl<E: From<Monitor>> OutputDriver<E> {
    /// A driver over sockets that are bound.
    pub fn new(engines: Socket, clients: Socket, monitor: MonitorLink<E>) -> Self {
        Self { engines: [engines], clients, monitor, refusals: Refusals::new("iopub") }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { refusals: self.refusals.counted_in(counts), ..self }
    }
}

impl<E: From<Monitor>> Driver for OutputDriver<E> {
    type Machine = OutputRelay;

    fn sockets(&self) -> &[Socket] {
        &self.engines
    }

    fn reads(&self, _index: usize) -> bool {
        !self.monitor.lags()
    }

    fn patience(&self) -> Option<Duration> {
        self.monitor.lags().then_some(LAG_PATIENCE)
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<OutputEvent> {
        match self.engines[index].receive() {
            None => Input::None,
            Some(Received::Message(mut frames)) => {
                let topic = (!frames.idents.is_empty()).then(|| frames.idents.remove(0));
                Input::Event(OutputEvent::FromEngine { topic, body: frames.body })
            }
            Some(Received::Garbage { sender, error }) => {
                self.refusals.note(sender.as_ref(), &error.into());
                Input::Dropped
            }
        }
    }

    fn before_perform(&mut self, effects: &mut Vec<OutputEffect>) {
        self.monitor.tell(effects, |effect| match effect {
            OutputEffect::Monitor(seen) => For::Hub(seen),
            other => For::Peers(other),
        });
    }

    fn perform(&mut self, effect: OutputEffect) -> ControlFlow<()> {
        match effect {
            OutputEffect::Publish { topic, body } => {
                self.clients.send([&topic], &body);
            }
            OutputEffect::Monitor(seen) => self.monitor.0.send(E::from(seen)),
            OutputEffect::Refused { from, refusal } => self.refusals.note(Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }
}
