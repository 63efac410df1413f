//! The sockets of the schedulers. What to do is decided by their machines.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use remuda_net::{
    Backlog, Driver, Input, Outbox, Publisher, Receipts, Received, RefusalCounts, Refusals, Sender, Socket, Unsent,
};
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, Frames, Identity, Idents, Now, Packer, Refusal};

use crate::broadcast::{Broadcast, BroadcastEffect, BroadcastEvent};
use crate::relay::{OutputEffect, OutputEvent, OutputRelay, Relay, RelayEffect, RelayEvent};
use crate::task::{TaskEffect, TaskEvent, TaskScheduler};

/// By default, how many messages the hub may be behind before clients are not read any more. At some 2 kB a message the
/// hub holds less than 200 MB of what it has not seen yet.
pub const MAX_HUB_LAG: usize = 100_000;
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

/// The way to the hub, with a limit on how far it may fall behind. One for each scheduler, all clones of one.
pub struct MonitorLink<E> {
    hub: Sender<E>,
    /// Most messages that may wait for the hub.
    max_lag: usize,
    /// What the hub has handed on to the task records and is not committed: it counts, too.
    backlog: Option<Backlog>,
    /// Whether it was told that the hub lags. Shared by all links.
    told: Arc<AtomicBool>,
}

impl<E> Clone for MonitorLink<E> {
    fn clone(&self) -> Self {
        let backlog = self.backlog.clone();
        Self { hub: self.hub.clone(), max_lag: self.max_lag, backlog, told: Arc::clone(&self.told) }
    }
}

impl<E: From<Monitor>> MonitorLink<E> {
    /// A link that ends in the hub's mailbox, in which `max_lag` messages may wait.
    pub fn new(hub: Sender<E>, max_lag: usize) -> Self {
        Self { hub, max_lag, backlog: None, told: Arc::default() }
    }

    /// The same, but the hub counts as behind, too, when its task records are.
    #[must_use]
    pub fn with_backlog(self, backlog: Backlog) -> Self {
        Self { backlog: Some(backlog), ..self }
    }

    fn send(&self, seen: Monitor) {
        self.hub.send(E::from(seen));
    }

    /// Says once that the hub lags, and once that it has caught up by half.
    fn watch(&self) {
        let (lag, limit) = (self.hub.lag(), self.max_lag);
        if lag > limit && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                lag,
                limit,
                "the hub is behind the schedulers by the limit --max-hub-lag: reading no more from clients until it catches up; \
                 a slow disk (`--db=sqlite`) or queries over many records may be why"
            );
        } else if lag <= limit / 2 && self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Relaxed) {
            tracing::info!(lag, limit, "the hub has caught up: reading from clients again");
        }
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
        self.hub.send_all(told.into_iter());
        self.watch();
    }

    fn lags(&self) -> bool {
        self.hub.lag() > self.max_lag || self.backlog.as_ref().is_some_and(Backlog::is_full)
    }
}

/// Two ROUTERs, one towards clients and one towards engines.
struct Sides {
    sockets: [Socket; 2],
    refusals: [Refusals; 2],
    /// What waits for clients, and for engines, that do not read. What engines lose is handed back.
    outboxes: [Outbox; 2],
}

impl Sides {
    fn new(clients: Socket, engines: Socket, name: [&'static str; 2], unsent: Unsent) -> Self {
        let [to_clients, to_engines] = name.map(|name| Outbox::new(name, unsent));
        Self {
            sockets: [clients, engines],
            refusals: name.map(Refusals::new),
            outboxes: [to_clients, to_engines.handing_back()],
        }
    }

    fn send<'a>(&mut self, side: usize, idents: impl Iterator<Item = &'a Identity> + Clone, body: &Body) {
        self.outboxes[side].send(&self.sockets[side], idents, body);
    }

    /// Sends what waited for peers that read again. Once a turn.
    fn flush(&mut self) {
        for (outbox, socket) in self.outboxes.iter_mut().zip(&self.sockets) {
            outbox.flush(socket);
        }
    }

    /// How soon to flush again.
    fn patience(&self) -> Option<Duration> {
        self.outboxes.iter().filter_map(Outbox::patience).min()
    }

    /// A message that an engine will not get: the engine, the other routing frames, and the message.
    fn take_undelivered(&mut self) -> Option<(Identity, Idents, Body)> {
        let (mut idents, body) = self.outboxes[ENGINES].take_lost()?;
        let engine = idents.remove(0);
        Some((engine, idents, body))
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

    /// Replies are told of once they are out of our hands.
    fn telling(mut self, receipts: Option<Arc<Receipts>>, packer: Packer) -> Self {
        let [to_clients, to_engines] = self.outboxes;
        self.outboxes = [to_clients.telling(receipts, packer), to_engines];
        self
    }

    /// A request tells whose connection it came over.
    fn meet(&mut self, seen: &Monitor) {
        if let Monitor::Request { client: Some(client), envelope, .. } = seen {
            self.outboxes[CLIENTS].meet(client, envelope.session.as_str());
        }
    }

    /// The requests whose replies are out of our hands since the last turn. Told a turn later, so that libzmq had some time.
    fn take_delivered(&mut self, packer: Packer) -> impl Iterator<Item = Monitor> {
        let done = self.outboxes[CLIENTS].take_done().into_iter();
        done.filter_map(move |reply| parent_msg_id(packer, &reply).ok().flatten())
            .map(|msg_id| Monitor::Delivered { msg_id })
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
    /// How replies are packed, if the hub is told which are out of our hands.
    tells: Option<Packer>,
}

impl<E: From<Monitor>> TaskDriver<E> {
    /// A driver over ROUTERs that are bound.
    pub fn new(clients: Socket, engines: Socket, monitor: MonitorLink<E>, unsent: Unsent) -> Self {
        let sides = Sides::new(clients, engines, ["task", "task (engines)"], unsent);
        Self { sides, monitor, paused: false, tells: None }
    }

    /// The same, and the hub is told which replies, in messages packed so, are out of our hands; there is a receipt for each, if
    /// there are some.
    #[must_use]
    pub fn telling(self, packer: Packer, receipts: Option<Arc<Receipts>>) -> Self {
        Self { sides: self.sides.telling(receipts, packer), tells: Some(packer), ..self }
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
        self.monitor.lags().then_some(LAG_PATIENCE).or_else(|| self.sides.patience())
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<TaskEvent> {
        if index == ENGINES
            && let Some((engine, _, body)) = self.sides.take_undelivered()
        {
            return Input::Event(TaskEvent::Undelivered { engine, body });
        }
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
                self.sides.send(ENGINES, [&engine, &client].into_iter(), &body);
            }
            TaskEffect::ToClient { client, engine, body } => {
                self.sides.send(CLIENTS, [&client].into_iter().chain(&engine), &body);
            }
            TaskEffect::Monitor(seen) => self.monitor.send(seen),
            TaskEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
            TaskEffect::PauseIntake(limit) => {
                tracing::warn!(
                    value = limit.value(),
                    "the limit --{} is reached: reading no more tasks from clients, whose sends wait, until a quarter of them is \
                     done; more engines, or a higher limit if there is memory, would help",
                    limit.name(),
                );
                self.paused = true;
            }
            TaskEffect::ResumeIntake => {
                tracing::info!("there is room for more tasks: reading from clients again");
                self.paused = false;
            }
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<TaskEffect>) {
        if let Some(packer) = self.tells {
            effects.iter().for_each(|effect| {
                if let TaskEffect::Monitor(seen) = effect {
                    self.sides.meet(seen);
                }
            });
            effects.extend(self.sides.take_delivered(packer).map(TaskEffect::Monitor));
        }
        self.sides.flush();
        self.monitor.tell(effects, |effect| match effect {
            TaskEffect::Monitor(seen) => For::Hub(seen),
            other => For::Peers(other),
        });
    }
}

/// Drives a [`Relay`]: the direct queue, or the control queue.
pub struct RelayDriver<E, T> {
    sides: Sides,
    monitor: MonitorLink<E>,
    /// Takes what the task scheduler is to know.
    tell_task: T,
    /// How replies are packed, if the hub is told which are out of our hands.
    tells: Option<Packer>,
}

impl<E: From<Monitor>, T: FnMut(TaskEvent)> RelayDriver<E, T> {
    /// A driver over ROUTERs that are bound. `names` are those of the client's and the engine's side, for the log.
    pub fn new(
        clients: Socket,
        engines: Socket,
        names: [&'static str; 2],
        monitor: MonitorLink<E>,
        unsent: Unsent,
        tell_task: T,
    ) -> Self {
        Self { sides: Sides::new(clients, engines, names, unsent), monitor, tell_task, tells: None }
    }

    /// The same, and the hub is told which replies, in messages packed so, are out of our hands; there is a receipt for each, if
    /// there are some.
    #[must_use]
    pub fn telling(self, packer: Packer, receipts: Option<Arc<Receipts>>) -> Self {
        Self { sides: self.sides.telling(receipts, packer), tells: Some(packer), ..self }
    }

    /// The same, with its refusals counted for others to see.
    #[must_use]
    pub fn counted_in(self, counts: &RefusalCounts) -> Self {
        Self { sides: self.sides.counted_in(counts), ..self }
    }
}

impl<E: From<Monitor>, T: FnMut(TaskEvent)> Driver for RelayDriver<E, T> {
    type Machine = Relay;

    fn sockets(&self) -> &[Socket] {
        &self.sides.sockets
    }

    fn reads(&self, index: usize) -> bool {
        index == ENGINES || !self.monitor.lags()
    }

    fn patience(&self) -> Option<Duration> {
        self.monitor.lags().then_some(LAG_PATIENCE).or_else(|| self.sides.patience())
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<RelayEvent> {
        if index == ENGINES
            && let Some((engine, idents, body)) = self.sides.take_undelivered()
        {
            return Input::Event(RelayEvent::Undelivered { engine, idents, body });
        }
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
                self.sides.send(ENGINES, [&engine].into_iter().chain(&idents), &body);
            }
            RelayEffect::ToClient { client, idents, body } => {
                self.sides.send(CLIENTS, [&client].into_iter().chain(&idents), &body);
            }
            RelayEffect::Monitor(seen) => self.monitor.send(seen),
            RelayEffect::Abort { msg_ids, stop } => (self.tell_task)(TaskEvent::Abort { msg_ids, stop }),
            RelayEffect::Signalled { msg_id } => (self.tell_task)(TaskEvent::Signalled { msg_id }),
            RelayEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<RelayEffect>) {
        if let Some(packer) = self.tells {
            effects.iter().for_each(|effect| {
                if let RelayEffect::Monitor(seen) = effect {
                    self.sides.meet(seen);
                }
            });
            effects.extend(self.sides.take_delivered(packer).map(RelayEffect::Monitor));
        }
        self.sides.flush();
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
    pub fn new(clients: Socket, engines: Socket, monitor: MonitorLink<E>, unsent: Unsent) -> Self {
        let names = ["broadcast", "broadcast (engines)"];
        Self { sides: Sides::new(clients, engines, names, unsent), monitor }
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
        self.monitor.lags().then_some(LAG_PATIENCE).or_else(|| self.sides.patience())
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<BroadcastEvent> {
        if index == ENGINES
            && let Some((engine, mut idents, body)) = self.sides.take_undelivered()
        {
            return Input::Event(BroadcastEvent::Undelivered { engine, client: idents.remove(0), body });
        }
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
                self.sides.send(ENGINES, [&engine, &client].into_iter(), &body);
            }
            BroadcastEffect::ToClient { client, body } => {
                self.sides.send(CLIENTS, std::iter::once(&client), &body);
            }
            BroadcastEffect::Monitor(seen) => self.monitor.send(seen),
            BroadcastEffect::Refused { from, refusal } => self.sides.refuse(CLIENTS, Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }

    fn before_perform(&mut self, effects: &mut Vec<BroadcastEffect>) {
        self.sides.flush();
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
    /// Bounds what waits in `clients`.
    publisher: Publisher,
    monitor: MonitorLink<E>,
    refusals: Refusals,
}

impl<E: From<Monitor>> OutputDriver<E> {
    /// A driver over sockets that are bound.
    pub fn new(engines: Socket, clients: Socket, monitor: MonitorLink<E>, unsent: Unsent) -> Self {
        let publisher = Publisher::new("iopub", unsent.max_bytes);
        Self { engines: [engines], clients, publisher, monitor, refusals: Refusals::new("iopub") }
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
                self.publisher.send(&self.clients, [&topic], &body);
            }
            OutputEffect::Monitor(seen) => self.monitor.send(seen),
            OutputEffect::Refused { from, refusal } => self.refusals.note(Some(&from), &refusal),
        }
        ControlFlow::Continue(())
    }
}
