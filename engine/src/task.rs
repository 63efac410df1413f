//! The task that a function runs for, as the function sees it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use remuda_net::Sender;
use remuda_proto::{EngineId, MsgId};
use tokio::sync::Notify;

use crate::machine::Event;
use crate::work::Stream;

/// The task that a function was called for: [`Task::current`]. Cheap to clone.
#[derive(Clone)]
pub struct Task {
    inner: Arc<Inner>,
}

struct Inner {
    msg_id: MsgId,
    attempt: u32,
    engine: EngineId,
    stop: Stop,
    events: Sender<Event>,
}

thread_local! {
    static CURRENT: RefCell<Option<Task>> = const { RefCell::new(None) };
}

impl Task {
    /// The task that this thread runs; `None` on a thread of the function's own.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Its id.
    pub fn msg_id(&self) -> &MsgId {
        &self.inner.msg_id
    }

    /// Which attempt at it this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The engine's id.
    pub fn engine_id(&self) -> EngineId {
        self.inner.engine
    }

    /// Whether it was told to stop, by a client or because its run timeout is over. A function that takes long looks now and
    /// then, and returns an error; what it returns all the same is its result.
    pub fn is_stopped(&self) -> bool {
        self.inner.stop.is_set()
    }

    /// Comes back once it is told to stop.
    pub async fn stopped(&self) {
        self.inner.stop.set_once().await;
    }

    /// Writes to its stdout: the client can read it as it comes. Each call is a message.
    pub fn print(&self, text: impl Into<String>) {
        self.write(Stream::Stdout, text.into());
    }

    /// Writes to its stderr.
    pub fn print_error(&self, text: impl Into<String>) {
        self.write(Stream::Stderr, text.into());
    }

    fn write(&self, stream: Stream, text: String) {
        self.inner.events.send(Event::Output { msg_id: self.inner.msg_id.clone(), stream, text });
    }

    pub(crate) fn new(msg_id: MsgId, attempt: u32, engine: EngineId, stop: Stop, events: Sender<Event>) -> Self {
        Self { inner: Arc::new(Inner { msg_id, attempt, engine, stop, events }) }
    }

    /// Makes it the current one of this thread while `call` runs.
    pub(crate) fn scope<R>(self, call: impl FnOnce() -> R) -> R {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(None);
            }
        }
        CURRENT.set(Some(self));
        let _leave = Leave;
        call()
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("msg_id", &self.inner.msg_id).field("attempt", &self.inner.attempt).finish()
    }
}

/// Whether a function was told to stop.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    pub(crate) fn set(&self) {
        let (flag, notify) = &*self.0;
        flag.store(true, Ordering::Release);
        notify.notify_waiters();
    }

    fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Comes back once it is set.
    pub(crate) async fn set_once(&self) {
        let (_, notify) = &*self.0;
        loop {
            let mut notified = std::pin::pin!(notify.notified());
            // Listening begins before the look, so that nothing falls between the two.
            notified.as_mut().enable();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }
}
