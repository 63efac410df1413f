//! The thread that has the sockets.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use remuda_net::{
    Clock, Context, Driver, Input, Kind, NetError, Received, Refusals, Security, Sender, Socket, address,
};
use remuda_proto::{ClientConnection, EngineId, EngineUuid, Map, MsgId, Now, Refusal, SessionId};
use tokio::sync::watch;

use crate::outstanding::{Channel, Effect, Event, Outstanding};
use crate::slot::{End, Slot};

/// The sockets in their order, with the names that the log has for them.
const CHANNELS: [(Channel, &str); 7] = [
    (Channel::Query, "query"),
    (Channel::Notification, "notification"),
    (Channel::Mux, "mux"),
    (Channel::Task, "task"),
    (Channel::Broadcast, "broadcast"),
    (Channel::Control, "control"),
    (Channel::Iopub, "iopub"),
];

/// The engines by id, as they are now.
pub(crate) type EngineList = Arc<BTreeMap<EngineId, EngineUuid>>;

/// What the thread and the handles share.
pub(crate) struct Shared {
    waiting: Mutex<Waiting>,
    engines: watch::Sender<EngineList>,
    answering: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    /// Where answers arrive. A task is here until its output has ended, any other request until its answer is there.
    slots: Map<MsgId, Waiter>,
    /// Whether the thread has ended; then `slots` is empty.
    closed: bool,
}

struct Waiter {
    slot: Arc<Slot>,
    has_output: bool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            engines: watch::Sender::new(EngineList::default()),
            answering: AtomicBool::new(true),
        }
    }

    /// Makes a place for the answer to a request that is about to be sent; `None` when nobody would answer.
    pub(crate) fn expect(&self, msg_id: &MsgId, has_output: bool) -> Option<Arc<Slot>> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return None;
        }
        let slot = Arc::<Slot>::default();
        waiting.slots.insert(msg_id.clone(), Waiter { slot: Arc::clone(&slot), has_output });
        Some(slot)
    }

    /// The engines that are registered.
    pub(crate) fn engines(&self) -> watch::Receiver<EngineList> {
        self.engines.subscribe()
    }

    /// Whether the controller answers.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// How many requests have not ended, output included.
    pub(crate) fn outstanding(&self) -> usize {
        self.waiting().slots.len()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, msg_id: &MsgId) -> Arc<Slot> {
        let waiting = self.waiting();
        let waiter = waiting.slots.get(msg_id);
        Arc::clone(&waiter.unwrap_or_else(|| panic!("nobody waits for `{msg_id}`")).slot)
    }

    fn resolve(&self, msg_id: &MsgId, end: End) {
        let mut waiting = self.waiting();
        let waiter = waiting.slots.get(msg_id).unwrap_or_else(|| panic!("nobody waits for `{msg_id}`"));
        let (slot, has_output) = (Arc::clone(&waiter.slot), waiter.has_output);
        if !has_output {
            waiting.slots.swap_remove(msg_id);
        }
        drop(waiting);
        // A result that nobody has kept the handle of takes no memory.
        let others = 1 + usize::from(has_output);
        if Arc::strong_count(&slot) == others {
            return;
        }
        slot.resolve(end, has_output);
    }

    fn end_output(&self, msg_id: &MsgId, complete: bool, dropped_bytes: u64) {
        let waiter = self.waiting().slots.swap_remove(msg_id);
        waiter.unwrap_or_else(|| panic!("nobody waits for `{msg_id}`")).slot.end_output(complete, dropped_bytes);
    }

    fn change_engines(&self, change: impl FnOnce(&mut BTreeMap<EngineId, EngineUuid>)) {
        self.engines.send_modify(|engines| change(Arc::make_mut(engines)));
    }
}

/// Where the thread passes on what it learns.
pub trait Deliver: Send + Sync + 'static {
    /// Any effect but [`Effect::Send`] and [`Effect::Refused`]. With a break, the thread ends.
    fn deliver(&self, effect: Effect) -> ControlFlow<()>;

    /// The thread has ended, however it did.
    fn closed(&self);
}

/// Tells all who wait that the thread has ended, however it did.
struct Closing<D: Deliver>(Arc<D>);

impl<D: Deliver> Drop for Closing<D> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

struct ClientDriver<D> {
    /// As in [`CHANNELS`].
    sockets: Vec<Socket>,
    /// One for each socket.
    refusals: Vec<Refusals>,
    shared: Arc<D>,
}

impl<D: Deliver> Driver for ClientDriver<D> {
    type Machine = Outstanding;

    fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    fn receive(&mut self, index: usize, _now: Now) -> Input<Event> {
        match self.sockets[index].receive() {
            None => Input::None,
            Some(Received::Message(frames)) => Input::Event(Event::Message { channel: CHANNELS[index].0, frames }),
            Some(Received::Garbage { sender, error }) => {
                self.refusals[index].note(sender.as_ref(), &Refusal::Frames(error));
                Input::Dropped
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> ControlFlow<()> {
        match effect {
            Effect::Send { channel, frames } => {
                // It cannot fail: a DEALER queues without limit for a peer that it has an address of.
                self.sockets[index_of(channel)].send_frames(&frames);
            }
            Effect::Refused { channel, refusal } => self.refusals[index_of(channel)].note(None, &refusal),
            other => return self.shared.deliver(other),
        }
        ControlFlow::Continue(())
    }
}

impl Deliver for Shared {
    fn deliver(&self, effect: Effect) -> ControlFlow<()> {
        match effect {
            Effect::Resolve { msg_id, outcome } => self.resolve(&msg_id, End::Outcome(Arc::new(outcome))),
            Effect::Output { msg_id, piece } => self.slot(&msg_id).write(piece),
            Effect::OutputEnded { msg_id, complete, dropped_bytes } => {
                self.end_output(&msg_id, complete, dropped_bytes);
            }
            Effect::EngineJoined(engine) => {
                tracing::debug!(engine = %engine.uuid, id = ?engine.id, "engine joined");
                if let Some(id) = engine.id {
                    self.change_engines(|engines| drop(engines.insert(id, engine.uuid)));
                }
            }
            Effect::EngineLeft(engine) => {
                tracing::debug!(engine = %engine.uuid, id = ?engine.id, "engine left");
                if let Some(id) = engine.id {
                    self.change_engines(|engines| drop(engines.remove(&id)));
                }
            }
            Effect::Answering(answering) => {
                if answering {
                    tracing::info!("the controller answers again");
                } else {
                    tracing::warn!("the controller does not answer");
                }
                self.answering.store(answering, Ordering::Relaxed);
            }
            Effect::Shutdown => {
                tracing::info!("the controller shuts down");
                return ControlFlow::Break(());
            }
            // Nothing raw is sent here, and the driver has kept the others.
            Effect::Published { .. } | Effect::Send { .. } | Effect::Refused { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn closed(&self) {
        let slots = {
            let mut waiting = self.waiting();
            waiting.closed = true;
            std::mem::take(&mut waiting.slots)
        };
        slots.values().for_each(|waiter| waiter.slot.disconnect());
    }
}

fn index_of(channel: Channel) -> usize {
    let index = CHANNELS.iter().position(|(each, _)| *each == channel);
    index.expect("every channel has a socket")
}

/// Connects the sockets and starts the thread. It ends when all senders have gone, or with the controller.
pub(crate) fn start<D: Deliver>(
    connection: &ClientConnection,
    interface: &str,
    security: Security,
    name: &SessionId,
    mut machine: Outstanding,
    shared: &Arc<D>,
) -> Result<Sender<Event>, NetError> {
    let context = Context::new().secured(security);
    let mut sockets = Vec::new();
    for (channel, _) in CHANNELS {
        let (kind, port) = match channel {
            Channel::Query => (Kind::Dealer, connection.common.registration),
            Channel::Notification => (Kind::Sub, connection.notification),
            Channel::Mux => (Kind::Dealer, connection.mux),
            Channel::Task => (Kind::Dealer, connection.task),
            Channel::Broadcast => (Kind::Dealer, connection.broadcast),
            Channel::Control => (Kind::Dealer, connection.control),
            Channel::Iopub => (Kind::Sub, connection.iopub),
        };
        let mut socket = Socket::builder(&context, kind)?;
        if kind == Kind::Dealer {
            // By this name a controller that takes over from one that died knows whose replies it has.
            socket = socket.identity(name.as_str().as_bytes())?;
        }
        sockets.push(socket.connect([address::url(interface, port)])?);
    }
    let refusals = CHANNELS.iter().map(|(_, name)| Refusals::new(name)).collect();
    let (sender, mailbox) = remuda_net::mailbox()?;
    let mut driver = ClientDriver { sockets, refusals, shared: Arc::clone(shared) };
    let closing = Closing(Arc::clone(shared));
    std::thread::Builder::new().name("remuda-client".to_owned()).spawn(move || {
        let _closing = closing;
        remuda_net::drive(&mut machine, &mut driver, &mailbox, Clock::new());
    })?;
    Ok(sender)
}
