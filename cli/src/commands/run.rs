//! `remuda run`: one program on an engine, as if it ran here.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use remuda_client::{
    AsyncResult, Client, EngineUuid, Limits, MsgId, PieceKind, ProcessResult, ProcessTask, ProgramInput, ProgramStream,
    StopReason, TaskError, TaskOptions,
};
use tokio::time::MissedTickBehavior;

use super::say;
use super::spooled::{SpoolError, Spooled};
use super::venue::{Interrupts, OUTPUT_LIMIT_BYTES, Venue};
use crate::args::run::RunArgs;
use crate::failure::{Failure, Outcome};

/// How long the end of a program is awaited that was told to stop: longer than its engine waits before it kills it.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to look for output that is not told any more, since the client keeps [no more](OUTPUT_LIMIT_BYTES) of what a
/// task says.
const LOOK: Duration = Duration::from_millis(200);
/// Exit code after `--timeout`, as that of `timeout`.
const TIMED_OUT: u8 = 124;
/// Exit code when nobody reads the output: that of a program that `SIGPIPE` ended.
const NOBODY_READS: u8 = 128 + 13;

pub(crate) fn run(args: &RunArgs) -> Outcome {
    let task = task(args)?;
    let input = args.stdin.then(read_stdin).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::new()?;
        let venue = tokio::select! {
            venue = Venue::find(&args.venue, 1, || Ok(())) => venue?,
            signal = interrupts.next() => return Ok(ExitCode::from(128 + signal)),
        };
        let code = run_on(&venue.client, args, task, input, &mut interrupts).await;
        venue.end();
        code
    })
}

/// What was typed, as a task.
fn task(args: &RunArgs) -> Result<ProcessTask, Failure> {
    let text = |word: &std::ffi::OsStr| {
        word.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!("`{}` is not UTF-8, and a task can hold only text", word.to_string_lossy()))
        })
    };
    let argv = args.command.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
    let cwd = match &args.cwd {
        Some(dir) => Some(text(dir.as_os_str())?),
        None => std::env::current_dir().ok().and_then(|dir| dir.into_os_string().into_string().ok()),
    };
    let variable = |word: &String| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.clone(), None),
    };
    Ok(ProcessTask {
        argv,
        env: args.env.iter().map(variable).collect(),
        clear_env: args.clear_env,
        cwd,
        input: args.stdin_file.clone().map(ProgramInput::HostFile),
        output: None,
        limits: Limits {
            cpu_seconds: args.max_cpu,
            memory_bytes: args.max_memory.map(|bytes| bytes as u64),
            open_files: args.max_files,
            file_bytes: args.max_file_size.map(|bytes| bytes as u64),
        },
        spool: true,
        log_bytes: None,
    })
}

fn read_stdin() -> io::Result<Bytes> {
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    Ok(input.into())
}

async fn run_on(
    client: &Client,
    args: &RunArgs,
    task: ProcessTask,
    input: Option<Bytes>,
    interrupts: &mut Interrupts,
) -> Outcome {
    let options = TaskOptions {
        fail_unplaceable: args.no_wait,
        label: args.label.clone().map(Into::into),
        ..args.work.options()
    };
    let program = task.argv.first().cloned().unwrap_or_default();
    let result = client.load_balanced_view().with_options(options).process(task, input)?;
    let mut live = result.live_output();
    let mut shown =
        Shown { client, msg_id: result.msg_id().clone(), engine: None, stdout: 0, stderr: 0, is_whole: true };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Of the engine that tells, from when on there is too much to tell.
    let (mut told, mut untold) = (0, None);
    let ended = loop {
        tokio::select! {
            // The text says that there is something; what it was is read from the engine, byte for byte.
            Some(piece) = live.next() => {
                let (stream, text) = match piece.kind {
                    PieceKind::Stdout(text) => (ProgramStream::Stdout, text),
                    PieceKind::Stderr(text) => (ProgramStream::Stderr, text),
                    _ => continue,
                };
                told += text.len();
                if told >= OUTPUT_LIMIT_BYTES / 2 {
                    untold.clone_from(&piece.engine);
                }
                if shown.show(piece.engine.as_ref(), stream).await.is_err() {
                    stop(&result).await;
                    return Ok(ExitCode::from(NOBODY_READS));
                }
            }
            _ = looks.tick(), if untold.is_some() => {
                for stream in [ProgramStream::Stdout, ProgramStream::Stderr] {
                    if shown.show(untold.as_ref(), stream).await.is_err() {
                        stop(&result).await;
                        return Ok(ExitCode::from(NOBODY_READS));
                    }
                }
            }
            ended = result.get() => break ended,
            signal = interrupts.next() => {
                stop(&result).await;
                return Ok(ExitCode::from(128 + signal));
            }
        }
    };
    let engine = result.metadata().and_then(|metadata| metadata.engine_uuid);
    match ended {
        Ok(ended) => {
            if shown.show_rest(engine.as_ref(), &ended).await.is_err() {
                return Ok(ExitCode::from(NOBODY_READS));
            }
            Ok(ExitCode::from(code(&program, &ended)))
        }
        Err(error) => failed(error),
    }
}

/// Stops the program, and waits for its end, though not for ever.
async fn stop(result: &AsyncResult<ProcessResult>) {
    let stopped = async {
        let _ = result.stop().await;
        let _ = result.get().await;
    };
    let _ = tokio::time::timeout(STOP_TIMEOUT, stopped).await;
}

/// What was shown of a program's output.
struct Shown<'a> {
    client: &'a Client,
    msg_id: MsgId,
    /// The engine of which it was.
    engine: Option<EngineUuid>,
    stdout: u64,
    stderr: u64,
    /// Whether the engine had all that was asked for.
    is_whole: bool,
}

impl Shown<'_> {
    /// Shows what there is of a stream. What the engine does not give now is shown at the end.
    async fn show(&mut self, engine: Option<&EngineUuid>, stream: ProgramStream) -> io::Result<()> {
        let Some(engine) = engine else { return Ok(()) };
        if self.engine.as_ref() != Some(engine) {
            (self.engine, self.stdout, self.stderr) = (Some(engine.clone()), 0, 0);
        }
        let spooled = Spooled { client: self.client, engine, msg_id: &self.msg_id };
        let copied = match stream {
            ProgramStream::Stderr => spooled.copy(stream, &mut self.stderr, &mut io::stderr()).await,
            _ => spooled.copy(stream, &mut self.stdout, &mut io::stdout()).await,
        };
        match copied {
            Ok(()) => Ok(()),
            // Nobody to read the errors is no reason to stop.
            Err(SpoolError::Write(_)) if stream == ProgramStream::Stderr => Ok(()),
            Err(SpoolError::Write(error)) => Err(error),
            Err(SpoolError::Query(_)) => {
                self.is_whole = false;
                Ok(())
            }
        }
    }

    /// Shows what was not shown yet of a program that has ended.
    async fn show_rest(&mut self, engine: Option<&EngineUuid>, ended: &ProcessResult) -> io::Result<()> {
        self.is_whole = true;
        for stream in [ProgramStream::Stdout, ProgramStream::Stderr] {
            self.show(engine, stream).await?;
        }
        if let Some(engine) = engine.filter(|_| self.is_whole) {
            Spooled { client: self.client, engine, msg_id: &self.msg_id }.release().await;
        } else {
            // The engine has gone, or has no files: the beginning is in the reply.
            let rest =
                |head: &Bytes, at: u64| head.slice(usize::try_from(at).map_or(head.len(), |at| at.min(head.len()))..);
            io::stdout().write_all(&rest(&ended.stdout, self.stdout))?;
            let _ = io::stderr().write_all(&rest(&ended.stderr, self.stderr));
        }
        io::stdout().flush()?;
        for (name, shown, head, file, dropped) in [
            ("stdout", self.stdout, &ended.stdout, ended.outcome.stdout_file_bytes, ended.outcome.stdout_dropped_bytes),
            ("stderr", self.stderr, &ended.stderr, ended.outcome.stderr_file_bytes, ended.outcome.stderr_dropped_bytes),
        ] {
            let missing = file.max(head.len() as u64).saturating_sub(shown.max(head.len() as u64)) + dropped;
            if missing > 0 {
                say(&format!("warning: {missing} bytes of {name} are missing: the engine could not keep or give them"));
            }
        }
        Ok(())
    }
}

/// The exit code for a program that has ended, as a shell would give it.
fn code(program: &str, ended: &ProcessResult) -> u8 {
    let outcome = &ended.outcome;
    match outcome.stopped {
        Some(StopReason::RunTimeout) => {
            say(&format!("error: `{program}` ran for longer than `--timeout` says, and was stopped"));
            return TIMED_OUT;
        }
        Some(StopReason::Asked) => say(&format!("error: `{program}` was stopped, as somebody asked for it")),
        None => {}
    }
    match (outcome.exit_code, outcome.signal) {
        // A code is one byte on the systems that engines run on.
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(signal)) => {
            if outcome.stopped.is_none() {
                say(&format!("error: `{program}` was ended by signal {signal}"));
            }
            u8::try_from(128 + signal).unwrap_or(1)
        }
        (None, None) => 1,
    }
}

/// A task that never was a program that ran.
fn failed(error: TaskError) -> Outcome {
    let code = match &error {
        TaskError::Remote(error) if error.ename == "FileNotFoundError" => 127,
        TaskError::Remote(error) if error.ename == "PermissionError" => 126,
        _ => return Err(Failure::new(error)),
    };
    let failure = Failure::new(error);
    Err(failure.code(code))
}
