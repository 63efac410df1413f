//! Prints messages made by Remuda, one JSON document a line, for ipyparallel's own code to read
//! (`tests/python/verify_rust_frames.py`): the golden messages the other way round.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use remuda_proto::message::content::{
    AbortRequest, Done, EngineNotification, ExecutionStatus, RegistrationRequest, Stream,
};
use remuda_proto::message::metadata::{ReplyMetadata, TaskMetadata};
use remuda_proto::message::native::{ApplyContent, NativeTask};
use remuda_proto::{
    Body, Date, Dependency, EngineId, Frames, Identity, Key, MsgId, MsgType, Packer, RemoteError, Session, Status,
    new_session_id,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Makes and prints the messages of one kind of session.
struct Sampler {
    key: &'static str,
    packer: Packer,
    session: Session,
}

impl Sampler {
    fn sample(&mut self, name: &str, idents: &[&[u8]], parent: Option<&Body>, parts: Parts<'_>) -> Body {
        let micros = if name.contains("whole_second") { 1_795_311_439_000_000 } else { 1_795_311_439_115_383 };
        let parent = parent.map(Body::header);
        let (_, body) = self
            .session
            .message(Date(micros), parts.msg_type, parent, &parts.metadata, &parts.content, parts.buffers)
            .expect("what is sampled can be packed");
        let frames = Frames::new(idents.iter().map(|ident| Identity::from(*ident)), body.clone());
        let unpack = |part| self.packer.unpack::<Value>(part).expect("just packed");
        let document = json!({
            "name": format!("{name} ({}, {})", self.packer.name(), if self.key.is_empty() { "unsigned" } else { "signed" }),
            "packer": self.packer.name(), "key": self.key, "signature_scheme": "hmac-sha256",
            "frames": frames.parts().map(|part| BASE64.encode(part)).collect::<Vec<_>>(),
            "idents": idents.len(),
            "readable": {
                "header": unpack(body.header()), "parent_header": unpack(body.parent_header()),
                "metadata": unpack(body.metadata()), "content": unpack(body.content()),
            },
        });
        println!("{document}");
        body
    }
}

/// What a message says.
struct Parts<'a> {
    msg_type: MsgType,
    metadata: Value,
    content: Value,
    buffers: &'a [Bytes],
}

fn parts(msg_type: MsgType, metadata: impl Serialize, content: impl Serialize) -> Parts<'static> {
    let value = |part: &dyn erased::Value| part.value();
    Parts { msg_type, metadata: value(&metadata), content: value(&content), buffers: &[] }
}

/// Any part as JSON, to be packed again as it is.
mod erased {
    pub(crate) trait Value {
        fn value(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> Value for T {
        fn value(&self) -> serde_json::Value {
            serde_json::to_value(self).expect("what is sampled has a JSON form")
        }
    }
}

fn main() {
    for (key, packer) in [
        ("0a1b2c3d-0123456789abcdef01234567", Packer::Json),
        ("0a1b2c3d-0123456789abcdef01234567", Packer::Msgpack),
        ("", Packer::Json),
        ("ключ with spaces", Packer::Json),
    ] {
        let session = Session::new(new_session_id([7; 16]), "ann", Key::new(key), packer, 4242);
        let mut sampler = Sampler { key, packer, session };
        let none = json!({});
        let engine = b"4084333d-02a4697fdf7727db55d93207";

        sampler.sample("connection_request", &[], None, parts(MsgType::ConnectionRequest, &none, &none));
        let registration = RegistrationRequest { uuid: "4084333d".into(), id: Some(EngineId(3)), remuda: None };
        sampler.sample("registration_request", &[], None, parts(MsgType::RegistrationRequest, &none, registration));
        let notification = EngineNotification { id: EngineId(0), uuid: "4084333d".into() };
        sampler.sample(
            "registration_notification, whole_second",
            &[],
            None,
            parts(MsgType::RegistrationNotification, &none, notification),
        );

        let mut metadata = TaskMetadata::default();
        metadata.label = Some("größe".into());
        metadata.after = Dependency::all_succeed([MsgId::from("a"), MsgId::from("b")]);
        metadata.follow = Dependency { all: false, failure: true, ..Dependency::all_succeed([MsgId::from("c")]) };
        metadata.set_retries(2);
        metadata.set_timeout(Some(std::time::Duration::from_millis(1500)));
        let buffers = [Bytes::from_static(b"\x00\xff"), Bytes::new(), Bytes::from(vec![7; 100_000])];
        let native = ApplyContent { remuda: Some(NativeTask::Function("mul".into())) };
        let task = Parts { buffers: &buffers, ..parts(MsgType::ApplyRequest, metadata, native) };
        let request = sampler.sample("apply_request", &[engine, &[0, 1, 0xfe, 0, 9]], None, task);

        let reply = ReplyMetadata {
            started: Date(1_795_311_439_000_001).to_string(),
            dependencies_met: true,
            engine: "4084333d".into(),
            is_broadcast: false,
            is_coalescing: false,
            original_msg_id: String::new(),
            label: Some("größe".into()),
            status: Status::Ok,
            engine_info: None,
        };
        let result = [Bytes::from_static(b"\x80\x04N.")];
        let ok = Parts { buffers: &result, ..parts(MsgType::ApplyReply, &reply, Done::default()) };
        sampler.sample("apply_reply", &[&[0, 1, 0xfe, 0, 9], engine], Some(&request), ok);
        let error = RemoteError::new("KeyError", "'x'").on_engine("4084333d".into(), EngineId(0), "apply");
        let reply = ReplyMetadata { status: Status::Error, ..reply };
        let failed = parts(MsgType::ApplyReply, &reply, error.content());
        sampler.sample("apply_reply with an error", &[b"c"], Some(&request), failed);
        let timeout = RemoteError::new("TaskTimeout", "");
        let failed = parts(MsgType::ApplyReply, &none, timeout.content());
        sampler.sample("apply_reply of the scheduler", &[b"c"], Some(&request), failed);

        let idle = ExecutionStatus { execution_state: "idle".into() };
        sampler.sample("status", &[b"engine.0.status"], Some(&request), parts(MsgType::Status, &none, idle));
        let output = Stream { name: "stdout".into(), text: "zwölf \u{2028} \u{1f40e}\n".into() };
        sampler.sample("stream", &[b"engine.0.stdout"], Some(&request), parts(MsgType::Stream, &none, output));
        let abort = AbortRequest { msg_ids: vec![MsgId::from("a")], ..AbortRequest::default() };
        sampler.sample("abort_request", &[engine], None, parts(MsgType::AbortRequest, &none, abort));
    }
}
