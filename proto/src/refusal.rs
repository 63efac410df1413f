//! Why bytes from a peer had no effect.

use crate::frames::{Body, FrameError};
use crate::id::{Identity, MsgId};
use crate::message::MsgType;
use crate::pack::PackError;
use crate::session::VerifyError;

/// Why a message was dropped. Drivers log it once per sender and reason, and count it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its frames are no message.
    #[error(transparent)]
    Frames(#[from] FrameError),
    /// Its signature.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A part of it is not what its packer writes, or not of the right shape.
    #[error("{0}")]
    Unpack(String),
    /// Its type is not for this socket.
    #[error("unexpected message type `{0}`")]
    UnexpectedType(MsgType),
    /// A task by that id was submitted before.
    #[error("task `{0}` was submitted before")]
    Resubmitted(MsgId),
    /// It names an engine that is not registered.
    #[error("no such engine: `{0}`")]
    UnknownEngine(Identity),
    /// It names no engine.
    #[error("the message names no engine")]
    NoTarget,
    /// A reply that nobody waits for, from this engine at least: late, or made up.
    #[error("reply to `{0}` that is not expected")]
    Unexpected(MsgId),
    /// A request beyond the number of those that are tracked. It runs all the same.
    #[error("too many requests without a reply to track `{0}` too")]
    Untracked(MsgId),
    /// It is larger than the controller takes.
    #[error(
        "the message has {size_bytes} bytes, and the controller's limit --max-message-bytes is {limit_bytes}: send less at \
         a time, or raise the limit"
    )]
    TooLarge {
        /// Its size, all frames together.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A message that answers nothing where an answer is due.
    #[error("message without a parent")]
    NoParent,
}

impl From<PackError> for Refusal {
    fn from(error: PackError) -> Self {
        Self::Unpack(error.to_string())
    }
}

impl Refusal {
    /// Refuses what is larger than `limit_bytes`.
    ///
    /// # Errors
    /// [`Self::TooLarge`].
    pub fn check_size(body: &Body, limit_bytes: usize) -> Result<(), Self> {
        let size_bytes = body.size_bytes();
        if size_bytes > limit_bytes { Err(Self::TooLarge { size_bytes, limit_bytes }) } else { Ok(()) }
    }

    /// A word for the kind, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Frames(_) => "frames",
            Self::Verify(VerifyError::Unsigned) => "unsigned",
            Self::Verify(VerifyError::Invalid) => "signature",
            Self::Verify(VerifyError::Duplicate) => "replay",
            Self::Unpack(_) => "unpack",
            Self::UnexpectedType(_) => "type",
            Self::Resubmitted(_) => "resubmitted",
            Self::UnknownEngine(_) => "unknown_engine",
            Self::NoTarget => "no_target",
            Self::Unexpected(_) => "unexpected",
            Self::Untracked(_) => "untracked",
            Self::TooLarge { .. } => "too_large",
            Self::NoParent => "no_parent",
        }
    }
}
