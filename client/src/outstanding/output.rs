//! What a task writes while it runs.

use std::borrow::Cow;

use remuda_proto::message::content::{ExecutionStatus, Stream};
use remuda_proto::{
    Body, Date, EngineUuid, Envelope, Instant, MsgId, MsgType, Packer, Refusal, RemoteError, Session, Set, Status,
};
use serde::Deserialize;
use serde_json::Value;

use super::Outcome;

/// One thing that a task wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// When it came in.
    pub received: Date,
    /// The engine that says so.
    pub engine: Option<EngineUuid>,
    /// What it is.
    pub kind: PieceKind,
}

/// What a task writes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PieceKind {
    /// Text on stdout.
    Stdout(String),
    /// Text on stderr.
    Stderr(String),
    /// The value of the last expression of a code string: MIME types to data.
    ExecuteResult(Value),
    /// Something displayed: MIME types to data.
    Display(Value),
}

/// Output of one task that has not ended.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    /// Bytes passed on so far; never beyond the limit.
    pub(super) kept_bytes: usize,
    /// Bytes that were not, because of the limit.
    pub(super) dropped_bytes: u64,
    /// Once the reply is there: when the end is no longer waited for.
    pub(super) ends: Option<Instant>,
    /// The engines that said they are done with the task. More than one where it was tried again.
    idle: Set<EngineUuid>,
    /// Whether the reply is there, and who made it.
    replied: Replied,
    /// Whether the messages are passed on as they are.
    pub(super) is_raw: bool,
}

#[derive(Debug, Default)]
enum Replied {
    /// It is not there.
    #[default]
    No,
    /// Somebody who does not say who it is.
    BySomebody,
    /// This engine.
    By(EngineUuid),
}

#[derive(Deserialize)]
struct Parent<'a> {
    #[serde(borrow, default)]
    msg_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    session: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct By<'a> {
    #[serde(borrow, default)]
    engine: Option<Cow<'a, str>>,
}

/// The request of this session that an iopub message belongs to. `None` for those of others, and for what an engine
/// says on its own account. Nothing is verified yet.
pub(super) fn parent_task(session: &Session, body: &Body) -> Result<Option<MsgId>, Refusal> {
    if session.packer().is_empty_map(body.parent_header()) {
        return Ok(None);
    }
    let parent: Parent<'_> = session.packer().unpack(body.parent_header())?;
    let ours = parent.session.is_some_and(|id| id == session.id().as_str());
    Ok(parent.msg_id.filter(|_| ours).map(|id| MsgId::from(&*id)))
}

impl Collecting {
    /// That of a task whose messages are passed on as they are.
    pub(super) fn raw() -> Self {
        Self { is_raw: true, ..Self::default() }
    }

    /// Takes a verified iopub message of the task that is passed on as it is, and says what it is.
    pub(super) fn take_raw(&mut self, packer: Packer, body: &Body) -> Result<MsgType, Refusal> {
        let msg_type = Envelope::read(packer, body)?.msg_type;
        if msg_type == MsgType::Status {
            self.status(packer, body)?;
        }
        Ok(msg_type)
    }

    /// Takes a verified iopub message of the task, and gives what is to be passed on.
    pub(super) fn take(
        &mut self,
        session: &Session,
        received: Date,
        body: &Body,
        limit_bytes: usize,
    ) -> Result<Option<Piece>, Refusal> {
        let packer = session.packer();
        let Envelope { msg_type, session, .. } = Envelope::read(packer, body)?;
        // An engine signs under its uuid (`engine/app.py`: the session is the identity).
        let engine = (!session.as_str().is_empty()).then(|| EngineUuid::from(session.as_str()));
        let kind = match msg_type {
            MsgType::Stream => {
                let Stream { name, text } = packer.unpack(body.content())?;
                let text = self.fit_text(text, limit_bytes);
                if text.is_empty() {
                    return Ok(None);
                }
                if name == "stderr" { PieceKind::Stderr(text) } else { PieceKind::Stdout(text) }
            }
            MsgType::ExecuteResult | MsgType::DisplayData if !self.fit(body.content().len(), limit_bytes) => {
                return Ok(None);
            }
            MsgType::ExecuteResult => PieceKind::ExecuteResult(packer.unpack::<Shown>(body.content())?.data),
            MsgType::DisplayData => PieceKind::Display(packer.unpack::<Shown>(body.content())?.data),
            MsgType::Status => {
                self.status(packer, body)?;
                return Ok(None);
            }
            // The reply carries the same error; the rest (code shown again, comms) is for notebooks.
            _ => return Ok(None),
        };
        Ok(Some(Piece { received, engine, kind }))
    }

    fn status(&mut self, packer: Packer, body: &Body) -> Result<(), Refusal> {
        let state: ExecutionStatus = packer.unpack(body.content())?;
        let by: By<'_> = packer.unpack(body.metadata())?;
        let engine = EngineUuid::from(by.engine.as_deref().unwrap_or_default());
        match &*state.execution_state {
            "idle" => drop(self.idle.insert(engine)),
            // Begun again, on the same engine.
            "busy" => drop(self.idle.swap_remove(&engine)),
            _ => {}
        }
        Ok(())
    }

    /// Notes how the task ended, and says whether its output has ended as well. What never ran has none, and neither has
    /// what is lost; such errors name no engine (`client/client.py: _handle_apply_reply`). `engine` is the one that it was sent
    /// to by name: the reply to a broadcast may be that of another one, which failed.
    pub(super) fn replied(&mut self, session: &Session, outcome: &Outcome, engine: Option<EngineUuid>) -> bool {
        let Outcome::Reply(reply) = outcome else { return true };
        self.replied = engine.or_else(|| reply.engine.clone()).map_or(Replied::BySomebody, Replied::By);
        match reply.status {
            Status::Aborted => true,
            Status::Error => {
                let error: Result<RemoteError, _> = session.packer().unpack(reply.body.content());
                !error.is_ok_and(|error| error.engine_info.is_some()) || self.has_ended()
            }
            Status::Ok => self.has_ended(),
        }
    }

    /// Whether the reply is there and the engine that made it is done with the task.
    pub(super) fn has_ended(&self) -> bool {
        match &self.replied {
            Replied::No => false,
            Replied::BySomebody => !self.idle.is_empty(),
            // An engine that does not say who it is counts too.
            Replied::By(engine) => self.idle.contains(engine) || self.idle.contains(""),
        }
    }

    /// Whether `bytes` more are within the limit; they count from now on.
    fn fit(&mut self, bytes: usize, limit_bytes: usize) -> bool {
        let fits = bytes <= limit_bytes - self.kept_bytes;
        if fits {
            self.kept_bytes += bytes;
        } else {
            self.dropped_bytes += bytes as u64;
        }
        fits
    }

    /// As much of the text as is within the limit.
    fn fit_text(&mut self, mut text: String, limit_bytes: usize) -> String {
        let room = text.len().min(limit_bytes - self.kept_bytes);
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.dropped_bytes += (text.len() - end) as u64;
        self.kept_bytes += end;
        text.truncate(end);
        text
    }
}
