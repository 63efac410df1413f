//! Where the thread of the sockets and those of Python meet.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::PyResult;
use pyo3::buffer::PyBuffer;
use remuda_client::Engine;
use remuda_client::outstanding::Effect;
use remuda_client::raw::Deliver;
use remuda_proto::{Body, EngineUuid, Map, MsgId};

use crate::slot::{End, Inner};
use crate::waiter::Bell;

/// What Python hears of.
pub(crate) enum Told {
    /// A watched slot published this.
    Published(MsgId, Body),
    /// The answer of a watched slot is there.
    Answered(MsgId),
    /// A watched slot will publish nothing more.
    Over(MsgId),
    /// An engine came.
    Joined(Engine),
    /// An engine went.
    Left(Engine),
    /// All that was lent under this number is back.
    Sent(u64),
    /// The controller shuts down.
    Shutdown,
    /// The thread has ended.
    Closed,
}

struct Waiter {
    slot: Arc<Inner>,
    has_output: bool,
    /// Whether it counts as an outstanding task.
    is_task: bool,
    /// The engine that it was sent to by name.
    engine: Option<EngineUuid>,
}

#[derive(Default)]
struct Slots {
    /// A task is here until its output has ended, any other request until its answer is there.
    by_id: Map<MsgId, Waiter>,
    closed: bool,
}

#[derive(Default)]
struct Lending {
    /// What is given back and not released.
    back: Vec<PyBuffer<u8>>,
    /// How many blocks are lent under a number.
    tracked: Map<u64, usize>,
}

pub(crate) struct Hub {
    slots: Mutex<Slots>,
    told: Mutex<VecDeque<Told>>,
    lending: Mutex<Lending>,
    bell: Bell,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new() -> PyResult<Self> {
        Ok(Self { slots: Mutex::default(), told: Mutex::default(), lending: Mutex::default(), bell: Bell::new()? })
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Makes a place for the answer to a request; resolved already if nobody will answer.
    pub(crate) fn expect(&self, msg_id: MsgId, is_task: bool, engine: Option<EngineUuid>) -> Arc<Inner> {
        let slot = Arc::<Inner>::default();
        let mut slots = lock(&self.slots);
        if slots.closed {
            drop(slots);
            slot.resolve(End::Closed);
            slot.end_output();
        } else {
            slots.by_id.insert(msg_id, Waiter { slot: Arc::clone(&slot), has_output: is_task, is_task, engine });
        }
        slot
    }

    /// The request of this id, unless it has ended.
    pub(crate) fn find(&self, msg_id: &str) -> Option<Arc<Inner>> {
        lock(&self.slots).by_id.get(msg_id).map(|waiter| Arc::clone(&waiter.slot))
    }

    /// The tasks without an answer; of those only that were sent to this engine by name.
    pub(crate) fn outstanding(&self, engine: Option<&str>) -> Vec<String> {
        let slots = lock(&self.slots);
        let is_meant = |waiter: &Waiter| engine.is_none() || waiter.engine.as_ref().map(EngineUuid::as_str) == engine;
        let tasks =
            slots.by_id.iter().filter(|(_, waiter)| waiter.is_task && is_meant(waiter) && !waiter.slot.is_done());
        tasks.map(|(msg_id, _)| msg_id.to_string()).collect()
    }

    pub(crate) fn tell(&self, told: Told) {
        lock(&self.told).push_back(told);
        self.bell.ring();
    }

    pub(crate) fn told(&self) -> VecDeque<Told> {
        self.bell.hush();
        std::mem::take(&mut *lock(&self.told))
    }

    /// A block is lent under this number.
    pub(crate) fn lends(&self, track: Option<u64>) {
        if let Some(track) = track {
            *lock(&self.lending).tracked.entry(track).or_default() += 1;
        }
    }

    /// A block comes back.
    pub(crate) fn give_back(&self, view: PyBuffer<u8>, track: Option<u64>) {
        let mut lending = lock(&self.lending);
        lending.back.push(view);
        let is_last = track.is_some_and(|track| {
            let Some(count) = lending.tracked.get_mut(&track) else { return false };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                lending.tracked.swap_remove(&track);
            }
            is_last
        });
        drop(lending);
        match track.filter(|_| is_last) {
            Some(track) => self.tell(Told::Sent(track)),
            None => self.bell.ring(),
        }
    }

    /// Whether nothing is lent under this number.
    pub(crate) fn is_back(&self, track: u64) -> bool {
        !lock(&self.lending).tracked.contains_key(&track)
    }

    /// Releases what came back; for a thread that has Python's lock.
    pub(crate) fn release(&self) {
        let back = std::mem::take(&mut lock(&self.lending).back);
        drop(back);
    }
}

impl Deliver for Hub {
    fn deliver(&self, effect: Effect) -> ControlFlow<()> {
        match effect {
            Effect::Resolve { msg_id, outcome } => {
                let slot = {
                    let mut slots = lock(&self.slots);
                    let Some(waiter) = slots.by_id.get(&msg_id) else { return ControlFlow::Continue(()) };
                    let (slot, has_output) = (Arc::clone(&waiter.slot), waiter.has_output);
                    if !has_output {
                        slots.by_id.swap_remove(&msg_id);
                    }
                    slot
                };
                if slot.resolve(End::Outcome(outcome)) {
                    self.tell(Told::Answered(msg_id));
                }
            }
            Effect::Published { msg_id, msg_type, body } => {
                if let Some(slot) = self.find(msg_id.as_str())
                    && let Some(body) = slot.publish(&msg_type, body)
                {
                    self.tell(Told::Published(msg_id, body));
                }
            }
            Effect::OutputEnded { msg_id, .. } => {
                let waiter = lock(&self.slots).by_id.swap_remove(&msg_id);
                if waiter.is_some_and(|waiter| waiter.slot.end_output()) {
                    self.tell(Told::Over(msg_id));
                }
            }
            Effect::EngineJoined(engine) => self.tell(Told::Joined(engine)),
            Effect::EngineLeft(engine) => self.tell(Told::Left(engine)),
            Effect::Shutdown => {
                self.tell(Told::Shutdown);
                return ControlFlow::Break(());
            }
            // Requests come raw here, and the driver keeps the others.
            Effect::Answering(_) | Effect::Output { .. } | Effect::Send { .. } | Effect::Refused { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn closed(&self) {
        let slots = {
            let mut slots = lock(&self.slots);
            slots.closed = true;
            std::mem::take(&mut slots.by_id)
        };
        for (msg_id, waiter) in slots {
            if !waiter.slot.is_done() && waiter.slot.resolve(End::Closed) {
                self.tell(Told::Answered(msg_id.clone()));
            }
            if waiter.slot.end_output() && waiter.has_output {
                self.tell(Told::Over(msg_id));
            }
        }
        self.tell(Told::Closed);
    }
}
