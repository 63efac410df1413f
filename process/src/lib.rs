//! Process definitions: how a program is run as a task.
//!
//! A [`Definition`] is read from JSON ([`Definition::read`]), by which everything that is wrong with it is found at once
//! ([`Problems`]), and gives the task that an engine runs ([`Definition::task`]). Nothing here reads a file, a clock or a
//! socket.

mod definition;
mod problem;
mod read;

pub use definition::{
    DEFAULT_CHUNK_BYTES, DefinedTask, Definition, InputAdapter, LOG_BYTES, OutputAdapter, ProcessType, Restart,
};
pub use problem::{Problem, Problems};
pub use remuda_proto::message::restart::RestartPolicy;
