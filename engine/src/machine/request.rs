//! A request as it arrived on the shell or control socket.

use remuda_proto::message::native::{ApplyContent, NativeTask, ProgramInput};
use remuda_proto::message::needs::Extras;
use remuda_proto::{Body, Frames, Idents, MsgId, MsgType, Packer, Refusal};
use serde::Deserialize;
use serde_json::Value;

use bytes::Bytes;

use crate::work::Work;

/// A verified request.
pub(super) struct Request {
    /// Routing frames, echoed by the reply: all of them, however many there are.
    pub(super) idents: Idents,
    /// Names the request.
    pub(super) msg_id: MsgId,
    /// What it asks for.
    pub(super) msg_type: MsgType,
    /// What its reply's metadata repeats.
    pub(super) echo: Echo,
    /// What its metadata asks for under `remuda`; `Err`: it makes no sense, and why.
    pub(super) extras: Result<Extras, String>,
    /// All of it.
    pub(super) body: Body,
}

/// What the metadata of a reply repeats of the request's (`engine/kernel.py: init_metadata`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Echo {
    pub(super) is_broadcast: bool,
    pub(super) is_coalescing: bool,
    pub(super) original_msg_id: String,
    pub(super) label: Option<Value>,
}

/// The values are taken as they come, since only the schedulers and clients know what they mean.
#[derive(Deserialize)]
struct RawEcho {
    #[serde(default)]
    is_broadcast: Value,
    #[serde(default)]
    is_coalescing: Value,
    #[serde(default)]
    original_msg_id: Value,
    #[serde(default)]
    label: Option<Value>,
    #[serde(default)]
    remuda: Option<Value>,
}

impl Request {
    /// Reads a message whose signature was verified. Python takes comm messages as well, which ask for nothing.
    pub(super) fn read(packer: Packer, frames: Frames, for_python: bool) -> Result<Self, Refusal> {
        let envelope = remuda_proto::Envelope::read(packer, &frames.body)?;
        let is_comm = for_python && matches!(envelope.msg_type.as_str(), "comm_open" | "comm_msg" | "comm_close");
        if !is_comm && !envelope.msg_type.as_str().ends_with("_request") {
            return Err(Refusal::UnexpectedType(envelope.msg_type));
        }
        // Metadata that says nothing sensible is no reason to leave a request without an answer.
        let mut raw = packer.unpack_map::<RawEcho>(frames.body.metadata()).ok().flatten();
        let extras = raw.as_mut().and_then(|raw| raw.remuda.take()).filter(|extras| !extras.is_null());
        let extras = extras.map_or_else(|| Ok(Extras::default()), serde_json::from_value);
        let extras = extras.map_err(|error| format!("metadata `remuda` is not understood: {error}"));
        let echo = raw.map_or_else(Echo::default, |raw| Echo {
            is_broadcast: raw.is_broadcast.as_bool().unwrap_or_default(),
            is_coalescing: raw.is_coalescing.as_bool().unwrap_or_default(),
            original_msg_id: raw.original_msg_id.as_str().unwrap_or_default().to_owned(),
            label: raw.label,
        });
        Ok(Self {
            idents: frames.idents,
            msg_id: envelope.msg_id,
            msg_type: envelope.msg_type,
            echo,
            extras,
            body: frames.body,
        })
    }

    /// Which attempt this is, from 1.
    pub(super) fn attempt(&self) -> u32 {
        self.extras.as_ref().map_or(1, Extras::attempt)
    }

    /// What `engine_info` calls it: `apply` for an `apply_request`.
    pub(super) fn method(&self) -> &str {
        let text = self.msg_type.as_str();
        text.strip_suffix("_request").unwrap_or(text)
    }

    #[cfg(test)]
    pub(super) fn bare(msg_id: &str) -> Self {
        let body = remuda_proto::Session::new("s".into(), "u", remuda_proto::Key::new(""), Packer::Json, 1)
            .sign_parts([b"{}"; 4], []);
        let (idents, msg_type) = (Idents::new(), MsgType::ApplyRequest);
        let extras = Ok(Extras::default());
        Self { idents, msg_id: msg_id.into(), msg_type, echo: Echo::default(), extras, body }
    }
}

/// What an `apply_request` asks of this engine.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// A native task.
    Work(Work),
    /// A pickled Python function.
    Python,
    /// A native task that makes no sense, and why.
    Invalid(String),
}

impl Asked {
    fn function(name: String, body: &Body, mapped: bool) -> Self {
        // Nil, which a function without arguments reads as `()`.
        let nil = || Bytes::from_static(b"\xc0");
        let argument = body.last_buffer().filter(|argument| !argument.is_empty()).unwrap_or_else(nil);
        // One buffer is the argument itself.
        let count = Some(body.buffer_count()).filter(|count| *count > 1).unwrap_or(0);
        let buffers = (0..count).map_while(|index| body.buffer(index)).collect();
        Self::Work(Work::Function { name, argument, buffers, mapped })
    }

    /// Reads the content of an `apply_request`.
    pub(super) fn read(packer: Packer, body: &Body) -> Self {
        if packer.is_empty_map(body.content()) {
            return Self::Python;
        }
        let task = match packer.unpack::<ApplyContent>(body.content()) {
            Ok(ApplyContent { remuda: Some(task) }) => task,
            Ok(ApplyContent { remuda: None }) => return Self::Python,
            Err(error) => return Self::Invalid(format!("the task is not understood: {error}")),
        };
        match task {
            NativeTask::Function(name) => Self::function(name, body, false),
            NativeTask::Map(name) => Self::function(name, body, true),
            NativeTask::Process(task) if task.argv.first().is_none_or(String::is_empty) => {
                Self::Invalid("the process task names no program: its `argv` is empty".to_owned())
            }
            NativeTask::Process(task) => {
                let takes = task.input.as_ref().is_some_and(|input| !matches!(input, ProgramInput::HostFile(_)));
                let input = takes.then(|| body.last_buffer());
                if input == Some(None) {
                    return Self::Invalid("the process task has `input`, but no buffer with it".to_owned());
                }
                Self::Work(Work::Process { task: Box::new(task), input: input.flatten() })
            }
        }
    }
}
