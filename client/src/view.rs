//! How tasks are submitted: by name of the engine, or wherever there is room.

mod direct;
mod load_balanced;
mod namespace;
mod sequence;

use bytes::Bytes;
use remuda_proto::message::native::{NativeTask, ProcessTask, ProgramInput};
use serde::Serialize;

pub use direct::DirectView;
pub use load_balanced::{LoadBalancedView, TaskOptions};
pub use sequence::Sequence;

use crate::client::Client;
use crate::error::SubmitError;
use crate::outstanding::Work;
use crate::pickle::PythonCall;
use remuda_proto::message::native::ApplyContent;

/// A call of a function that native engines have registered under this name.
fn function<A: Serialize + ?Sized>(client: &Client, name: &str, argument: &A) -> Result<Work, SubmitError> {
    let written = rmp_serde::to_vec_named(argument);
    let argument = written.map_err(|source| SubmitError::Argument { function: name.to_owned(), source })?;
    Ok(client.native_work(NativeTask::Function(name.to_owned()), Some(argument.into())))
}

/// A program.
fn process(client: &Client, mut task: ProcessTask, input: Option<Bytes>) -> Result<Work, SubmitError> {
    if task.argv.first().is_none_or(String::is_empty) {
        return Err(SubmitError::NoProgram);
    }
    if input.is_some() {
        task.input.get_or_insert(ProgramInput::Stdin);
    }
    let takes = !matches!(task.input, None | Some(ProgramInput::HostFile(_)));
    let input = takes.then(|| input.unwrap_or_default());
    Ok(client.native_work(NativeTask::Process(task), input))
}

/// A call of a Python function that engines can import.
fn python(call: PythonCall) -> Result<Work, SubmitError> {
    let function = call.name().to_owned();
    let buffers = call.buffers().map_err(|source| SubmitError::PythonArgument { function, source })?;
    Ok(Work::Apply { content: ApplyContent::default(), buffers })
}
