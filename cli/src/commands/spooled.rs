//! What programs wrote and their engines have in files.

use std::io::{self, Write};

use remuda_client::{Client, EngineUuid, MsgId, ProgramStream, QueryError};

/// Why not all could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The engine.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Whoever reads it here.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// The output of a task that an engine has in files.
pub(crate) struct Spooled<'a> {
    pub(crate) client: &'a Client,
    pub(crate) engine: &'a EngineUuid,
    pub(crate) msg_id: &'a MsgId,
}

impl Spooled<'_> {
    /// Writes what there is of a stream from `at` on, and moves `at` behind it.
    pub(crate) async fn copy(&self, stream: ProgramStream, at: &mut u64, to: &mut dyn Write) -> Result<(), SpoolError> {
        loop {
            let part = self.client.program_output(self.engine, self.msg_id, stream, *at).await?;
            if part.bytes.is_empty() {
                to.flush()?;
                return Ok(());
            }
            to.write_all(&part.bytes)?;
            *at = part.offset + part.bytes.len() as u64;
        }
    }

    /// Writes all of a stream of a program that has ended: its beginning, which the result has, then what the engine has.
    ///
    /// # Errors
    /// Also when the engine does not have it any more.
    pub(crate) async fn rest(
        &self,
        stream: ProgramStream,
        head: &[u8],
        all: u64,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        to.write_all(head)?;
        let mut at = head.len() as u64;
        if at < all {
            self.copy(stream, &mut at, to).await.map_err(|error| match error {
                SpoolError::Write(error) => error,
                SpoolError::Query(error) => {
                    let missing = all - at.min(all);
                    io::Error::other(format!(
                        "the last {missing} of {all} bytes that a program wrote are lost: {error}"
                    ))
                }
            })?;
        }
        to.flush()
    }

    /// It is needed no more. An engine that has left has nothing to remove.
    pub(crate) async fn release(&self) {
        let _ = self.client.release_program_output(self.engine, self.msg_id).await;
    }
}
