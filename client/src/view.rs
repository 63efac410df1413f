//! How tasks are submitted: by name of the engine, or wherever there is room.

mod broadcast;
mod direct;
mod imap;
mod load_balanced;
mod namespace;
mod sequence;

use bytes::Bytes;
use remuda_proto::message::native::{NativeTask, ProcessTask, ProgramInput};
use remuda_proto::{Function, value};

pub use broadcast::BroadcastView;
pub use direct::DirectView;
pub use imap::Imap;
pub use load_balanced::{LoadBalancedView, TaskOptions};
pub use sequence::Sequence;

use crate::client::Client;
use crate::error::SubmitError;
use crate::outstanding::Work;
use crate::pickle::PythonCall;
use remuda_proto::message::native::ApplyContent;

/// A call of a function that native engines have.
fn call<F: Function>(client: &Client, function: &F, args: &F::Args) -> Result<Work, SubmitError> {
    let written = value::write(args, client.first_buffer());
    let (argument, buffers) =
        written.map_err(|source| SubmitError::Argument { function: function.name().to_owned(), source })?;
    Ok(client.native_work(NativeTask::Function(function.name().to_owned()), buffers, Some(argument)))
}

/// Calls of a function that native engines have, as one task.
fn calls<F: Function>(client: &Client, function: &F, items: &[F::Args]) -> Result<Work, SubmitError> {
    let mut writer = value::Writer::new(client.first_buffer());
    writer.begin_list(items.len());
    for item in items {
        let written = writer.write(item);
        written.map_err(|source| SubmitError::Argument { function: function.name().to_owned(), source })?;
    }
    let (arguments, buffers) = writer.finish();
    Ok(client.native_work(NativeTask::Map(function.name().to_owned()), buffers, Some(arguments)))
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
    Ok(client.native_work(NativeTask::Process(task), Vec::new(), input))
}

/// A call of a Python function that engines can import.
fn python(call: PythonCall) -> Result<Work, SubmitError> {
    let function = call.name().to_owned();
    let buffers = call.buffers().map_err(|source| SubmitError::PythonArgument { function, source })?;
    Ok(Work::Apply { content: ApplyContent::default(), buffers })
}
