//! What a program wrote, beyond what is in its result.

use bytes::Bytes;
use remuda_proto::message::content::{MAX_OUTPUT_PART, OutputReply, OutputRequest, ProgramStream};
use remuda_proto::{EngineUuid, MsgId, MsgType};
use serde_json::json;

use crate::client::Client;
use crate::error::QueryError;
use crate::outstanding::Outcome;
use crate::query;

/// A part of what a program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPart {
    /// Where it begins, in bytes from the start: where it was asked for, or later if what was before is kept no more (of a
    /// service only).
    pub offset: u64,
    /// The bytes; none if there are no more so far.
    pub bytes: Bytes,
    /// Whether the program has ended: then an empty part is the end.
    pub ended: bool,
}

impl Client {
    /// A part of what a program wrote, from `offset` on, in bytes: 1 MiB at most. The engine has it in a file if the task had
    /// [`spool`](crate::ProcessTask::spool) set, while it runs and after; else if it was too much for the result
    /// ([`ProcessOutcome::stdout_file_bytes`](crate::ProcessOutcome::stdout_file_bytes)), after. It goes with the engine, and an hour after the
    /// program's end.
    ///
    /// # Errors
    /// [`QueryError::Refused`] if there is no such file, or the engine is a stock one without a nanny;
    /// [`QueryError::EngineLost`] if it has left.
    pub async fn program_output(
        &self,
        engine: &EngineUuid,
        msg_id: &MsgId,
        stream: ProgramStream,
        offset: u64,
    ) -> Result<OutputPart, QueryError> {
        let (msg_id, max_bytes) = (msg_id.clone(), MAX_OUTPUT_PART);
        let request = OutputRequest { msg_id, stream, offset, max_bytes, release: false };
        let msg_type = MsgType::OutputRequest;
        let outcome = self.tell_for_reply(engine.clone(), &msg_type, &json!(request)).await?;
        let reply: OutputReply = query::read(self.inner.packer, &msg_type, &outcome)?;
        let bytes = match &*outcome {
            Outcome::Reply(reply) => reply.body.buffer(0).unwrap_or_default(),
            _ => Bytes::new(),
        };
        Ok(OutputPart { offset: reply.offset.unwrap_or(offset), bytes, ended: reply.ended })
    }

    /// Tells an engine that what a program wrote is needed no more, beyond what is in its result.
    ///
    /// # Errors
    /// As [`Self::program_output`].
    pub async fn release_program_output(&self, engine: &EngineUuid, msg_id: &MsgId) -> Result<(), QueryError> {
        let (msg_id, stream) = (msg_id.clone(), ProgramStream::Stdout);
        let request = OutputRequest { msg_id, stream, offset: 0, max_bytes: 0, release: true };
        let msg_type = MsgType::OutputRequest;
        let outcome = self.tell_for_reply(engine.clone(), &msg_type, &json!(request)).await?;
        query::read::<serde_json::Value>(self.inner.packer, &msg_type, &outcome).map(drop)
    }
}
