//! `remuda process run`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use remuda_client::{AsyncResult, ProcessResult, StopReason};
use tokio::signal::unix::{SignalKind, signal};

use super::{bytes_of, client, failed, say};
use crate::args::process::RunArgs;
use crate::failure::{Failure, Outcome};

pub(super) async fn run(args: &RunArgs) -> Outcome {
    let input = args.input.as_deref().map(bytes_of).transpose()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let client = client(&args.controller).await?;
    let task = client.definitions().run(&*args.which, input.map(Into::into)).await.map_err(failed)?;
    let signal = tokio::select! {
        done = &task => return end(args, &done?),
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    };
    stop(&task).await?;
    Ok(ExitCode::from(128 + signal))
}

/// Nobody wants the result any more.
async fn stop(task: &AsyncResult<ProcessResult>) -> Result<(), Failure> {
    task.stop().await.map_err(|error| {
        Failure::new(error).hint(format!("the program may still run: `remuda task abort --stop {}`", task.msg_id()))
    })
}

/// Prints what the program gave.
fn end(args: &RunArgs, result: &ProcessResult) -> Outcome {
    io::stderr().write_all(&result.stderr)?;
    if result.output.is_some() && args.output.is_none() {
        // What it said beside its result is not the result.
        io::stderr().write_all(&result.stdout)?;
    }
    if let Some(path) = &args.output {
        write(path, result.result())?;
    } else {
        let mut out = io::stdout().lock();
        out.write_all(result.result())?;
        out.flush()?;
    }
    let dropped = result.result_dropped_bytes();
    if dropped > 0 {
        return Err(Failure::new(anyhow::anyhow!(
            "{dropped} bytes of the result are missing: they went beyond the engine's limit"
        ))
        .hint("`remuda engine --help` has the limit"));
    }
    let outcome = &result.outcome;
    if let Err(error) = result.clone().checked()
        && (outcome.signal.is_some() || outcome.stopped.is_some())
    {
        say(&format!("error: {error}"));
    }
    Ok(ExitCode::from(code(result)))
}

/// The exit code as a shell has it.
fn code(result: &ProcessResult) -> u8 {
    let outcome = &result.outcome;
    let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(1);
    match (outcome.exit_code, outcome.signal) {
        // It has not done what it should, whatever it said at the end.
        (Some(0), _) if outcome.stopped == Some(StopReason::RunTimeout) => 1,
        (Some(code), _) => low(code),
        (None, Some(signal)) => low(128 + signal),
        (None, None) => 1,
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| {
        let what = format!("cannot write `{}`", path.display());
        Failure::new(anyhow::Error::new(error).context(what)).hint("name another file with `--output`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_client::ProcessOutcome;

    #[test]
    fn the_exit_code_is_the_programs() {
        let with = |exit_code, signal, stopped| {
            let outcome = ProcessOutcome { exit_code, signal, stopped, ..ProcessOutcome::default() };
            let (stdout, stderr) = Default::default();
            code(&ProcessResult { outcome, stdout, stderr, output: None })
        };
        assert_eq!(with(Some(0), None, None), 0);
        assert_eq!(with(Some(3), None, None), 3);
        assert_eq!(with(None, Some(9), None), 137);
        assert_eq!(with(Some(0), None, Some(StopReason::RunTimeout)), 1);
    }
}
