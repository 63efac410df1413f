//! The messages that an engine writes, and their metadata.

use std::borrow::Cow;

use bytes::Bytes;
use remuda_proto::message::content::{
    Again, ExecutionStatus, RegistrationOptions, RegistrationRequest, Shutdown, Stream as StreamContent,
};
use remuda_proto::message::content::{OkStatus, UnregistrationRequest};
use remuda_proto::message::metadata::ReplyMetadata;
use remuda_proto::message::native::{Announcement, NativeReply};
use remuda_proto::{Body, Date, EngineId, EngineUuid, Identity, MsgType, Packer, RemoteError, Session, Status};
use serde::Serialize;
use serde_json::json;

use super::request::Request;
use super::{Effect, Link};
use crate::work::{Published, Stream};

/// Writes and signs.
pub(super) struct Writer {
    pub(super) session: Session,
    /// Equal to the session's id: the hub relies on it (`controller/hub.py: save_iopub_message`).
    pub(super) uuid: EngineUuid,
    /// Given by the controller; 0 before.
    pub(super) id: EngineId,
}

/// A reply on the shell socket.
pub(super) struct Answer<C> {
    pub(super) status: Status,
    /// False sends the task to another engine.
    pub(super) dependencies_met: bool,
    pub(super) content: C,
    pub(super) buffers: Vec<Bytes>,
}

/// The same, with content that is JSON already.
pub(super) struct RawAnswer {
    pub(super) status: Status,
    pub(super) dependencies_met: bool,
    pub(super) content: Bytes,
    pub(super) buffers: Vec<Bytes>,
}

/// `{"status": "ok"}`, with what a native engine adds.
#[derive(Serialize)]
pub(super) struct OkContent<'a> {
    status: OkStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    remuda: Option<&'a NativeReply>,
}

/// An error, with what a native engine adds, and with the counter that an `execute_reply` always has.
#[derive(Serialize)]
struct FailedContent<'a> {
    status: Status,
    #[serde(flatten)]
    error: &'a RemoteError,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remuda: Option<&'a NativeReply>,
}

/// A map, since a struct without fields is packed as null.
fn empty() -> serde_json::Value {
    json!({})
}

impl Writer {
    pub(super) fn packer(&self) -> Packer {
        self.session.packer()
    }

    pub(super) fn register(
        &mut self,
        now: Date,
        wish: Option<EngineId>,
        announcement: &Announcement,
        again: Option<Again>,
    ) -> Effect {
        let options = RegistrationOptions { announcement: announcement.clone(), again };
        let content = RegistrationRequest { uuid: self.uuid.clone(), id: wish, remuda: Some(options) };
        Effect::Hub(self.message(now, MsgType::RegistrationRequest, None, &empty(), &content, &[]))
    }

    pub(super) fn unregister(&mut self, now: Date, id: Option<EngineId>) -> Effect {
        let content = UnregistrationRequest { id, remuda: None };
        Effect::Hub(self.message(now, MsgType::UnregistrationRequest, None, &empty(), &content, &[]))
    }

    /// iopub `status`.
    pub(super) fn status(&mut self, now: Date, parent: Option<&Body>, state: &str) -> Effect {
        let content = ExecutionStatus { execution_state: state.to_owned() };
        let metadata = self.engine_metadata();
        self.publish(now, "status", MsgType::Status, parent.map(Body::header), &metadata, &content)
    }

    /// iopub `stream`.
    pub(super) fn stream(&mut self, now: Date, parent: &[u8], stream: Stream, text: String) -> Effect {
        let content = StreamContent { name: stream.name().to_owned(), text };
        self.publish(now, stream.name(), MsgType::Stream, Some(parent), &empty(), &content)
    }

    /// iopub `error`: without `engine_info`.
    fn error(&mut self, now: Date, parent: &Body, error: &RemoteError) -> Effect {
        let content = json!({"ename": error.ename, "evalue": error.evalue, "traceback": error.traceback});
        let metadata = self.engine_metadata();
        self.publish(now, "error", MsgType::Error, Some(parent.header()), &metadata, &content)
    }

    /// iopub `shutdown_reply`, by which the hub unregisters the engine at once.
    pub(super) fn shutdown(&mut self, now: Date, parent: &Body, content: &Shutdown) -> Effect {
        let content = shutdown_content(content);
        self.publish(now, "shutdown", MsgType::ShutdownReply, Some(parent.header()), &empty(), &content)
    }

    /// The reply to a request on the shell socket.
    pub(super) fn reply<C: Serialize>(
        &mut self,
        now: Date,
        started: Date,
        request: &Request,
        answer: &Answer<C>,
    ) -> Effect {
        let metadata = self.reply_metadata(started, request, answer.status, answer.dependencies_met);
        let body = self.message(
            now,
            request.msg_type.reply(),
            Some(request.body.header()),
            &metadata,
            &answer.content,
            &answer.buffers,
        );
        Effect::Reply { link: Link::Shell, idents: request.idents.clone(), body }
    }

    fn reply_metadata(
        &self,
        started: Date,
        request: &Request,
        status: Status,
        dependencies_met: bool,
    ) -> ReplyMetadata {
        let engine_info =
            (status == Status::Error).then(|| json!({"engine_uuid": self.uuid.as_str(), "engine_id": self.id}));
        ReplyMetadata {
            started: started.to_string(),
            dependencies_met,
            engine: self.uuid.clone(),
            is_broadcast: request.echo.is_broadcast,
            is_coalescing: request.echo.is_coalescing,
            original_msg_id: request.echo.original_msg_id.clone(),
            label: request.echo.label.clone(),
            status,
            engine_info,
        }
    }

    /// The reply to a request on the shell socket whose content is JSON already.
    pub(super) fn raw_reply(&mut self, now: Date, started: Date, request: &Request, answer: RawAnswer) -> Effect {
        let metadata = self.reply_metadata(started, request, answer.status, answer.dependencies_met);
        let metadata = self.packer().pack(&metadata).expect("what an engine says has text for keys");
        let content = self.packed(&answer.content);
        let parent = request.body.header();
        let body = self.raw_message(now, request.msg_type.reply(), [parent, &metadata, &content], answer.buffers);
        Effect::Reply { link: Link::Shell, idents: request.idents.clone(), body }
    }

    /// What Python code published.
    pub(super) fn published(&mut self, now: Date, message: Published) -> Effect {
        let topic = message.topic.unwrap_or_else(|| format!("engine.{}.{}", self.id, message.msg_type));
        // A stock engine says with each message who it is (`engine/app.py: send_with_metadata`).
        let mut metadata: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&message.metadata).unwrap_or_default();
        metadata.entry("engine").or_insert_with(|| self.uuid.as_str().into());
        let metadata = self.packer().pack(&metadata).expect("a map that came as JSON can go as anything");
        let [parent, content] = [&message.parent, &message.content].map(|part| self.packed(part));
        let body = self.raw_message(now, message.msg_type, [&parent, &metadata, &content], message.buffers);
        Effect::Publish { topic: Identity::from(topic.as_bytes()), body }
    }

    /// A part that is JSON, in the form of this connection.
    fn packed<'a>(&self, part: &'a [u8]) -> Cow<'a, [u8]> {
        match self.packer() {
            Packer::Json => Cow::Borrowed(part),
            Packer::Msgpack => {
                let value: serde_json::Value = serde_json::from_slice(part).unwrap_or_else(|_| empty());
                Cow::Owned(self.packer().pack(&value).expect("a value that came as JSON can go as MessagePack"))
            }
        }
    }

    fn raw_message(&mut self, now: Date, msg_type: MsgType, parts: [&[u8]; 3], buffers: Vec<Bytes>) -> Body {
        let header = self.session.header(now, msg_type);
        let header = self.packer().pack(&header).expect("a header has text for keys");
        let [parent, metadata, content] = parts;
        self.session.sign_parts([&header, parent, metadata, content], buffers)
    }

    /// An ok reply on the shell socket.
    pub(super) fn ok(
        &mut self,
        now: Date,
        started: Date,
        request: &Request,
        native: Option<&NativeReply>,
        buffers: Vec<Bytes>,
    ) -> Effect {
        let content = OkContent { status: OkStatus::Ok, remuda: native };
        let answer = Answer { status: Status::Ok, dependencies_met: true, content, buffers };
        self.reply(now, started, request, &answer)
    }

    pub(super) fn aborted(&mut self, now: Date, request: &Request) -> Effect {
        let content = json!({"status": "aborted"});
        let answer = Answer { status: Status::Aborted, dependencies_met: true, content, buffers: Vec::new() };
        self.reply(now, now, request, &answer)
    }

    /// An error reply on the shell socket, after the `error` message that goes with it. A task that is to run elsewhere
    /// has not failed, so nothing is published of it.
    pub(super) fn failed(
        &mut self,
        now: Date,
        started: Date,
        request: &Request,
        failure: Failure<'_>,
        out: &mut Vec<Effect>,
    ) {
        let error = failure.error.on_engine(self.uuid.clone(), self.id, request.method());
        if failure.dependencies_met {
            out.push(self.error(now, &request.body, &error));
        }
        let execution_count = (request.msg_type == MsgType::ExecuteRequest).then_some(0);
        let content = FailedContent { status: Status::Error, error: &error, execution_count, remuda: failure.native };
        let answer = Answer {
            status: Status::Error,
            dependencies_met: failure.dependencies_met,
            content,
            buffers: failure.buffers,
        };
        out.push(self.reply(now, started, request, &answer));
    }

    /// A reply on the control socket.
    pub(super) fn control(&mut self, now: Date, request: &Request, content: &(impl Serialize + ?Sized)) -> Effect {
        let metadata = self.engine_metadata();
        let body = self.message(now, request.msg_type.reply(), Some(request.body.header()), &metadata, content, &[]);
        Effect::Reply { link: Link::Control, idents: request.idents.clone(), body }
    }

    /// A reply on the control socket, with a buffer.
    pub(super) fn control_part(
        &mut self,
        now: Date,
        request: &Request,
        content: &impl Serialize,
        part: Bytes,
    ) -> Effect {
        let metadata = self.engine_metadata();
        let body =
            self.message(now, request.msg_type.reply(), Some(request.body.header()), &metadata, content, &[part]);
        Effect::Reply { link: Link::Control, idents: request.idents.clone(), body }
    }

    /// An error reply on the control socket.
    pub(super) fn control_error(&mut self, now: Date, request: &Request, error: RemoteError) -> Effect {
        let error = error.on_engine(self.uuid.clone(), self.id, request.method());
        self.control(now, request, &error.content())
    }

    fn engine_metadata(&self) -> serde_json::Value {
        json!({"engine": self.uuid.as_str()})
    }

    fn publish(
        &mut self,
        now: Date,
        topic: &str,
        msg_type: MsgType,
        parent: Option<&[u8]>,
        metadata: &serde_json::Value,
        content: &impl Serialize,
    ) -> Effect {
        let body = self.message(now, msg_type, parent, metadata, content, &[]);
        let topic = format!("engine.{}.{topic}", self.id);
        Effect::Publish { topic: Identity::from(topic.as_bytes()), body }
    }

    fn message(
        &mut self,
        now: Date,
        msg_type: MsgType,
        parent: Option<&[u8]>,
        metadata: &(impl Serialize + ?Sized),
        content: &(impl Serialize + ?Sized),
        buffers: &[Bytes],
    ) -> Body {
        let message = self.session.message(now, msg_type, parent, metadata, content, buffers);
        message.expect("what an engine says has text for keys, so it has a packed form").1
    }
}

/// Why a task failed.
pub(super) struct Failure<'a> {
    pub(super) error: RemoteError,
    pub(super) dependencies_met: bool,
    pub(super) native: Option<&'a NativeReply>,
    pub(super) buffers: Vec<Bytes>,
}

impl Failure<'_> {
    /// An error of the task's own.
    pub(super) fn of(error: RemoteError) -> Self {
        Self { error, dependencies_met: true, native: None, buffers: Vec::new() }
    }

    /// A task that this engine cannot run, but another one may.
    pub(super) fn unmet(error: RemoteError) -> Self {
        Self { dependencies_met: false, ..Self::of(error) }
    }
}

/// `{"status": "ok", "restart": false}`
pub(super) fn shutdown_content(content: &Shutdown) -> serde_json::Value {
    json!({"status": "ok", "restart": content.restart})
}
