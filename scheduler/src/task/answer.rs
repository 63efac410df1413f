//! The replies that the scheduler itself makes.

use remuda_proto::message::Envelope;
use remuda_proto::message::metadata::MetadataError;
use remuda_proto::message::native::StopReason;
use remuda_proto::{Body, Date, EngineUuid, MsgId, MsgType, Packer, RemoteError, Session, Status};
use serde::Serialize;

/// Why a task is answered by the scheduler (`controller/task_scheduler.py: fail_unreachable, handle_stranded_tasks`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What it waits for cannot happen, or no engine that may run it is there.
    Impossible,
    /// It names a task that is not known, or itself.
    Invalid,
    /// It waited too long.
    Timeout,
    /// It is not wanted any more.
    Aborted,
    /// The engine that had it is gone.
    Died(EngineUuid),
    /// It was to end, on this engine, and it did: why, and what the engine said.
    Stopped(StopReason, EngineUuid, Box<str>),
    /// Its metadata makes no sense; the name of the error and its text.
    Malformed(&'static str, String),
}

impl Failure {
    /// That of a request whose metadata was not understood.
    pub(super) fn malformed(error: &MetadataError) -> Self {
        let ename = if matches!(error.key, "after" | "follow") { "InvalidDependency" } else { "ValueError" };
        Self::Malformed(ename, error.to_string())
    }

    /// What the reply says.
    pub(super) fn status(&self) -> Status {
        if matches!(self, Self::Aborted) { Status::Aborted } else { Status::Error }
    }

    fn error(&self, msg_id: &MsgId) -> RemoteError {
        match self {
            Self::Impossible => RemoteError::new("ImpossibleDependency", ""),
            Self::Invalid => RemoteError::new("InvalidDependency", ""),
            Self::Timeout => RemoteError::new("TaskTimeout", ""),
            // No error at all: see `reply`.
            Self::Aborted => RemoteError::new("TaskAborted", ""),
            // The bytes of Python's repr, as stock has it.
            Self::Died(uuid) => {
                RemoteError::new("EngineError", format!("Engine b'{uuid}' died while running task '{msg_id}'"))
            }
            Self::Stopped(StopReason::Asked, _, said) => {
                RemoteError::new("TaskStopped", format!("the task was stopped: {said}"))
            }
            Self::Stopped(StopReason::RunTimeout, _, said) => {
                RemoteError::new("RunTimeout", format!("the task ran for longer than its run timeout: {said}"))
            }
            Self::Malformed(ename, text) => RemoteError::new(ename, text.clone()),
        }
    }
}

/// Most characters that are kept of the error of an attempt.
const KEPT_CHARS: usize = 120;

/// The error that a reply tells of, in short.
pub(super) fn said(packer: Packer, reply: &Body) -> Box<str> {
    let text = match packer.unpack::<RemoteError>(reply.content()) {
        Ok(error) => error.to_string(),
        Err(_) => "an error that cannot be read".to_owned(),
    };
    match text.char_indices().nth(KEPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[derive(Serialize)]
struct Aborted {
    status: Status,
}

#[derive(Serialize)]
struct Died<'a> {
    status: Status,
    engine: &'a EngineUuid,
    date: Date,
}

/// The reply to a request that failed. Stock clients take an `apply_reply` for an answer to anything; to aborted
/// requests engines answer in kind.
pub(super) fn reply(session: &mut Session, date: Date, msg_id: &MsgId, request: &Body, failure: &Failure) -> Body {
    let parent = Some(request.header());
    let status = failure.status();
    let error = failure.error(msg_id);
    let reply = match failure {
        Failure::Aborted => {
            let asked = Envelope::read(session.packer(), request).expect("the header was read when the task came");
            session.message(date, asked.msg_type.reply(), parent, &Aborted { status }, &Aborted { status }, &[])
        }
        Failure::Died(engine) | Failure::Stopped(_, engine, _) => {
            let metadata = Died { status, engine, date };
            session.message(date, MsgType::ApplyReply, parent, &metadata, &error.content(), &[])
        }
        _ => {
            let nothing = serde_json::Map::new();
            session.message(date, MsgType::ApplyReply, parent, &nothing, &error.content(), &[])
        }
    };
    reply.expect("text and lists of text have a packed form").1
}
