//! A connection to a controller.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use remuda_client::Engine;
use remuda_client::outstanding::{Channel, Event, Names, Raw, part_id};
use remuda_net::Sender;
use remuda_proto::{ClientConnection, EngineUuid, MsgId, MsgType, SessionId};

use crate::buffer::{lend, message};
use crate::hub::{Hub, Told};
use crate::slot::Slot;

/// A connection: sends, and is told.
#[pyclass(frozen)]
pub(crate) struct Core {
    hub: Arc<Hub>,
    /// `None` once it is closed.
    sender: Mutex<Option<Sender<Event>>>,
    names: Names,
    named: AtomicU64,
}

fn channel(name: &str) -> PyResult<Channel> {
    Ok(match name {
        "query" => Channel::Query,
        "mux" => Channel::Mux,
        "task" => Channel::Task,
        "broadcast" => Channel::Broadcast,
        "control" => Channel::Control,
        _ => return Err(PyValueError::new_err(format!("there is no channel `{name}` to send by"))),
    })
}

impl Core {
    fn next_msg_id(&self) -> MsgId {
        self.names.msg_id(self.named.fetch_add(1, Ordering::Relaxed))
    }

    fn send(&self, events: Vec<Event>) {
        // Whoever closes it resolves what is expected.
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            sender.send_all(events.into_iter());
        }
    }

    fn slot(&self, msg_id: &MsgId, is_task: bool, engine: Option<&EngineUuid>) -> Slot {
        Slot::new(self.hub.expect(msg_id.clone(), is_task, engine.cloned()), msg_id.to_string())
    }
}

/// The parts of a request that are the same for each of many.
#[derive(Clone)]
struct Same {
    channel: Channel,
    msg_type: MsgType,
    metadata: Vec<u8>,
    content: Vec<u8>,
}

impl Same {
    fn raw(&self, buffers: Vec<bytes::Bytes>) -> Raw {
        let Self { channel, msg_type, metadata, content } = self.clone();
        let (engine, parts) = (None, Vec::new());
        Raw { channel, engine, parts, coalesce: false, msg_type, metadata, content, buffers, is_answered: true }
    }
}

#[pymethods]
impl Core {
    /// Opens the sockets. `connection` is the text of a connection file, whose `interface` is connected to.
    #[new]
    fn new(connection: &str, session: &str) -> PyResult<Self> {
        let connection: ClientConnection = serde_json::from_str(connection)
            .map_err(|error| PyValueError::new_err(format!("the connection cannot be read: {error}")))?;
        let hub = Arc::new(Hub::new()?);
        let opened = remuda_client::raw::open(&connection, SessionId::from(session), &hub);
        let (sender, names) = opened.map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { hub, sender: Mutex::new(Some(sender)), names, named: AtomicU64::new(0) })
    }

    /// Sends a request, and gives its slot.
    #[pyo3(signature = (by, msg_type, metadata, content, buffers, engine=None, track=None))]
    #[allow(clippy::too_many_arguments, reason = "each is a part of the message")]
    fn submit(
        &self,
        by: &str,
        msg_type: &str,
        metadata: &[u8],
        content: &[u8],
        buffers: &Bound<'_, PyList>,
        engine: Option<&str>,
        track: Option<u64>,
    ) -> PyResult<Slot> {
        self.hub.release();
        let channel = channel(by)?;
        let buffers = buffers.iter().map(|buffer| lend(&buffer, &self.hub, track)).collect::<PyResult<_>>()?;
        let msg_id = self.next_msg_id();
        let engine = engine.map(EngineUuid::from);
        let slot = self.slot(&msg_id, channel.has_tasks(), engine.as_ref());
        let (metadata, content) = (metadata.to_vec(), content.to_vec());
        let same = Same { channel, msg_type: MsgType::from(msg_type), metadata, content };
        let raw = Box::new(Raw { engine, ..same.raw(buffers) });
        self.send(vec![Event::Raw { msg_id, raw }]);
        Ok(slot)
    }

    /// Sends what has no answer.
    #[pyo3(signature = (by, msg_type, metadata, content, buffers, engine=None))]
    fn post(
        &self,
        by: &str,
        msg_type: &str,
        metadata: &[u8],
        content: &[u8],
        buffers: &Bound<'_, PyList>,
        engine: Option<&str>,
    ) -> PyResult<String> {
        let buffers = buffers.iter().map(|buffer| lend(&buffer, &self.hub, None)).collect::<PyResult<_>>()?;
        let (metadata, content) = (metadata.to_vec(), content.to_vec());
        let same = Same { channel: channel(by)?, msg_type: MsgType::from(msg_type), metadata, content };
        let raw = Box::new(Raw { engine: engine.map(EngineUuid::from), is_answered: false, ..same.raw(buffers) });
        let msg_id = self.next_msg_id();
        let name = msg_id.to_string();
        self.send(vec![Event::Raw { msg_id, raw }]);
        Ok(name)
    }

    /// Sends many tasks that differ in their last buffers only: each has those of `head`, and its own of `tails`.
    #[pyo3(signature = (by, metadata, content, head, tails))]
    fn submit_many<'py>(
        &self,
        by: &str,
        metadata: &[u8],
        content: &[u8],
        head: &Bound<'py, PyList>,
        tails: &Bound<'py, PyList>,
    ) -> PyResult<Vec<Slot>> {
        self.hub.release();
        let lend = |buffer: &Bound<'py, PyAny>| lend(buffer, &self.hub, None);
        let head = head.iter().map(|buffer| lend(&buffer)).collect::<PyResult<Vec<_>>>()?;
        let same = Same {
            channel: channel(by)?,
            msg_type: MsgType::ApplyRequest,
            metadata: metadata.to_vec(),
            content: content.to_vec(),
        };
        let mut messages = Vec::with_capacity(tails.len());
        for tail in tails.iter() {
            let mut buffers = head.clone();
            if let Ok(one) = tail.cast::<PyBytes>() {
                buffers.push(lend(one.as_any())?);
            } else {
                for buffer in tail.try_iter()? {
                    buffers.push(lend(&buffer?)?);
                }
            }
            messages.push(buffers);
        }
        let (mut slots, mut events) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for buffers in messages {
            let msg_id = self.next_msg_id();
            slots.push(self.slot(&msg_id, true, None));
            events.push(Event::Raw { msg_id, raw: Box::new(same.raw(buffers)) });
        }
        self.send(events);
        Ok(slots)
    }

    /// Sends a broadcast, and gives its id and the slot of each engine's part.
    #[allow(clippy::too_many_arguments, reason = "each is a part of the message")]
    #[pyo3(signature = (engines, coalesce, msg_type, metadata, content, buffers, track=None))]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands it over so")]
    fn broadcast(
        &self,
        engines: Vec<String>,
        coalesce: bool,
        msg_type: &str,
        metadata: &[u8],
        content: &[u8],
        buffers: &Bound<'_, PyList>,
        track: Option<u64>,
    ) -> PyResult<(String, Vec<Slot>)> {
        self.hub.release();
        let buffers = buffers.iter().map(|buffer| lend(&buffer, &self.hub, track)).collect::<PyResult<_>>()?;
        let msg_id = self.next_msg_id();
        let parts: Vec<_> = engines.iter().map(|uuid| EngineUuid::from(uuid.as_str())).collect();
        let slots = parts.iter().map(|uuid| self.slot(&part_id(&msg_id, uuid), true, Some(uuid))).collect();
        let (metadata, content) = (metadata.to_vec(), content.to_vec());
        let same = Same { channel: Channel::Broadcast, msg_type: MsgType::from(msg_type), metadata, content };
        let raw = Box::new(Raw { parts, coalesce, ..same.raw(buffers) });
        let name = msg_id.to_string();
        self.send(vec![Event::Raw { msg_id, raw }]);
        Ok((name, slots))
    }

    /// The slot of a request that has not ended.
    fn find(&self, msg_id: &str) -> Option<Slot> {
        self.hub.find(msg_id).map(|inner| Slot::new(inner, msg_id.to_owned()))
    }

    /// The ids of the tasks without an answer; of those only that were sent to this engine by name.
    #[pyo3(signature = (engine=None))]
    fn outstanding(&self, engine: Option<&str>) -> Vec<String> {
        self.hub.outstanding(engine)
    }

    /// Whether nothing is held any more that was sent under this number.
    fn sent(&self, track: u64) -> bool {
        self.hub.is_back(track)
    }

    /// What to poll for reading until there is something to be told.
    fn fileno(&self) -> RawFd {
        self.hub.bell().fd()
    }

    /// What came since it was last asked: tuples that begin with a word.
    fn told<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.hub.release();
        let engine = |engine: Engine| (engine.id.map(|id| id.0), engine.uuid.to_string());
        let tell = |told: Told| match told {
            Told::Published(msg_id, body) => ("published", msg_id.as_str(), message(py, &body)?).into_pyobject(py),
            Told::Answered(msg_id) => ("answered", msg_id.as_str()).into_pyobject(py),
            Told::Over(msg_id) => ("over", msg_id.as_str()).into_pyobject(py),
            Told::Joined(joined) => ("joined", engine(joined)).into_pyobject(py),
            Told::Left(left) => ("left", engine(left)).into_pyobject(py),
            Told::Sent(track) => ("sent", track).into_pyobject(py),
            Told::Shutdown => ("shutdown",).into_pyobject(py),
            Told::Closed => ("closed",).into_pyobject(py),
        };
        self.hub.told().into_iter().map(tell).collect()
    }

    /// Wakes whoever polls.
    fn ring(&self) {
        self.hub.bell().ring();
    }

    /// Closes the connection. What has no answer gets none.
    fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.hub.release();
    }
}
