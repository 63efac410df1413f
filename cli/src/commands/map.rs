//! `remuda map`: one process task for each row of values.

mod blocks;
mod input;
mod joblog;
mod producer;
mod results;
mod template;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use remuda_client::{Client, Metadata, MsgId, ProcessResult, ProgramStream, Targets, TaskError, TaskOptions};
use tokio::sync::mpsc::Receiver;

use crate::args::map::{Halt, MapArgs, Tally, What};
use crate::commands::cluster::cores;
use crate::commands::say;
use crate::commands::spooled::Spooled;
use crate::commands::venue::{Interrupts, Venue};
use crate::failure::{Failure, Outcome};
use joblog::{Entry, JobLog, Resume};
use producer::{Jobs, Next};
use template::Job;

/// Most tasks that are submitted and not finished, where `-n` does not say less: enough to keep thousands of engines busy,
/// few enough to hold in memory.
const WINDOW: usize = 10_000;
/// Most output that waits for the turn of its job, in bytes, with `--keep-order`: beyond that no more jobs are begun.
const MAX_EARLY_BYTES: usize = 256 << 20;
/// Most failures that are named at the end.
const NAMED_FAILURES: usize = 20;
/// How long replies to aborted tasks are awaited after a Ctrl-C.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &MapArgs) -> Outcome {
    let jobs = Jobs::read(args)?;
    if args.dry_run {
        return dry_run(jobs);
    }
    let resume = match (args.resume, args.resume_failed) {
        (true, _) => Resume::Ended,
        (_, true) => Resume::Succeeded,
        _ => Resume::No,
    };
    let log = args.joblog.as_deref().map(|path| JobLog::open(path, resume)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From the first moment on, so that a Ctrl-C during the start leaves nothing behind either.
        let mut interrupts = Interrupts::new()?;
        let cluster = tokio::select! {
            cluster = find(args, &jobs) => cluster?,
            signal = interrupts.next() => return Ok(ExitCode::from(128 + signal)),
        };
        let count = jobs.known_count();
        let code = Map::new(args, &cluster, log, count).run(jobs.start()?, &mut interrupts).await;
        cluster.end();
        code
    })
}

/// The cluster to run on.
async fn find(args: &MapArgs, jobs: &Jobs) -> Result<Venue, Failure> {
    let slots = args.jobs.map_or_else(cores, usize::from).min(jobs.known_count().unwrap_or(usize::MAX)).max(1);
    // An engine of its own has the same programs as we: what is missing is missing for all.
    Venue::find(&args.venue, slots, || jobs.check_program()).await
}

/// Prints the commands.
fn dry_run(jobs: Jobs) -> Outcome {
    let mut stdout = io::stdout().lock();
    for next in jobs {
        match writeln!(stdout, "{}", next?.job.display()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::from(141)),
            done => done?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A job that is under way.
struct Running {
    job: Job,
    msg_id: MsgId,
    /// Bytes on its stdin.
    sent: usize,
}

/// A job that has ended.
struct Ended {
    job: Job,
    msg_id: MsgId,
    sent: usize,
    result: Result<ProcessResult, TaskError>,
    metadata: Option<Metadata>,
}

impl Ended {
    /// Why it failed, if it did.
    fn failure(&self) -> Option<String> {
        match &self.result {
            Ok(result) => result.clone().checked().err().map(|failed| failed.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Its exit code, if it has one.
    fn exit_code(&self) -> Option<i32> {
        self.result.as_ref().ok().and_then(|result| result.outcome.exit_code)
    }

    fn entry(&self) -> Entry {
        let outcome = self.result.as_ref().ok().map(|result| &result.outcome);
        let runtime_s = outcome.map_or(0.0, |outcome| outcome.wall_us as f64 / 1e6);
        let started = self.metadata.as_ref().and_then(|metadata| metadata.started).map(|date| date.0 as f64 / 1e6);
        let engine = self.metadata.as_ref().and_then(|metadata| metadata.engine_id);
        Entry {
            seq: self.job.seq,
            host: engine.map_or_else(|| ":".to_owned(), |id| format!("engine-{id}")),
            started_s: started.unwrap_or_else(|| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_secs_f64() - runtime_s
            }),
            runtime_s,
            sent: self.sent,
            received: self.result.as_ref().map_or(0, stdout_bytes),
            // A job that was stopped for its time has not done what it should, whatever it said at the end.
            exit_code: outcome
                .filter(|outcome| outcome.success() || outcome.exit_code != Some(0))
                .and_then(|o| o.exit_code)
                .unwrap_or(-1),
            signal: outcome.and_then(|outcome| outcome.signal).unwrap_or(0),
            command: self.job.display(),
        }
    }

    /// What its engine has of its output, if that is more than is in the result.
    fn spooled<'a>(&'a self, client: &'a Client) -> Option<Spooled<'a>> {
        let result = self.result.as_ref().ok()?;
        let engine = self.metadata.as_ref()?.engine_uuid.as_ref()?;
        let outcome = &result.outcome;
        let more = outcome.stdout_file_bytes > result.stdout.len() as u64
            || outcome.stderr_file_bytes > result.stderr.len() as u64;
        more.then_some(Spooled { client, engine, msg_id: &self.msg_id })
    }

    /// What it holds in memory, in bytes.
    fn size(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.stdout.len() + result.stderr.len())
    }
}

/// How much a program wrote to stdout.
fn stdout_bytes(result: &ProcessResult) -> u64 {
    result.outcome.stdout_file_bytes.max(result.stdout.len() as u64) + result.outcome.stdout_dropped_bytes
}

/// Replies as they come: the number of the job by submission, and how it ended.
type Waiting = FuturesUnordered<LocalBoxFuture<'static, (usize, Result<ProcessResult, TaskError>, Option<Metadata>)>>;

/// The run of all jobs.
struct Map<'a> {
    args: &'a MapArgs,
    client: &'a Client,
    options: TaskOptions,
    window: usize,
    log: Option<JobLog>,
    cwd: Option<String>,
    bar: ProgressBar,
    waiting: Waiting,
    /// What is under way, by number of submission.
    running: BTreeMap<usize, Running>,
    /// How many were submitted.
    submitted: usize,
    /// Jobs that ended before one that was submitted earlier, if they are to be printed in that order.
    early: BTreeMap<usize, Ended>,
    early_bytes: usize,
    /// The job whose output is printed next, in that order.
    next: usize,
    tally: Tally,
    /// Whether nothing more is to be begun.
    is_over: bool,
    /// Whether that is because enough jobs had ended.
    is_halted: bool,
    /// What is said of the first failures.
    failures: Vec<String>,
    /// The exit code of the last that failed.
    last_failed: Option<i32>,
}

impl<'a> Map<'a> {
    fn new(args: &'a MapArgs, cluster: &'a Venue, log: Option<JobLog>, count: Option<usize>) -> Self {
        // In a running cluster `-n` says how many tasks there are at a time.
        let window = args.jobs.filter(|_| !cluster.is_embedded()).map_or(WINDOW, usize::from);
        let bar = ProgressBar::with_draw_target(count.map(|count| count as u64), target(args));
        let template = match count {
            Some(_) => "{bar:32} {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}",
            None => "{spinner} {pos} done  {elapsed} elapsed  {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            args,
            client: &cluster.client,
            options: TaskOptions { retries: args.retries, retry_anywhere: true, quiet: true, ..args.work.options() },
            // What is under way when enough have ended runs, so nothing waits for its turn.
            window: match args.halt {
                Halt::Never => window,
                Halt::When { .. } => window.min(cluster.slots.unwrap_or_else(cores)).max(1),
            },
            log,
            cwd: std::env::current_dir().ok().and_then(|dir| dir.into_os_string().into_string().ok()),
            bar,
            waiting: Waiting::new(),
            running: BTreeMap::new(),
            submitted: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            next: 0,
            tally: Tally::default(),
            is_over: false,
            is_halted: false,
            failures: Vec::new(),
            last_failed: None,
        }
    }

    async fn run(mut self, mut jobs: Receiver<Result<Next, Failure>>, interrupts: &mut Interrupts) -> Outcome {
        let mut broken = None;
        while !(self.is_over && self.waiting.is_empty()) {
            let has_room = self.waiting.len() < self.window && self.early_bytes < MAX_EARLY_BYTES;
            tokio::select! {
                next = jobs.recv(), if has_room && !self.is_over => {
                    let submitted = match next {
                        None => {
                            self.is_over = true;
                            continue;
                        }
                        Some(next) => next.and_then(|next| self.submit(next)),
                    };
                    if let Err(failure) = submitted {
                        // What runs may end: what it is for was right.
                        (self.is_over, broken) = (true, Some(failure));
                    }
                }
                Some((index, result, metadata)) = self.waiting.next() => {
                    match self.ended(index, result, metadata).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                            self.is_over = true;
                            self.give_up().await;
                            broken.get_or_insert_with(|| error.into());
                        }
                        Ok(Err(_)) => {
                            // Nobody reads what we print (`| head`): there is no use in going on.
                            self.give_up().await;
                            return Ok(ExitCode::from(141));
                        }
                        Err(failure) => {
                            // What cannot be noted would be done in vain.
                            self.is_over = true;
                            self.give_up().await;
                            broken.get_or_insert(failure);
                        }
                    }
                    if let Some(soon) = self.args.halt.is_reached(self.tally).filter(|_| !self.is_over) {
                        self.halt(soon).await;
                    }
                }
                signal = interrupts.next() => {
                    self.bar.abandon();
                    say(&format!("interrupted: stopping {} programs that were not finished", self.running.len()));
                    self.give_up().await;
                    return Ok(ExitCode::from(128 + signal));
                }
            }
        }
        self.bar.finish_and_clear();
        match self.print_rest().await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::from(141)),
            printed => printed?,
        }
        let code = self.summary();
        broken.map_or(Ok(code), Err)
    }

    /// Begins a job, unless an earlier run did it.
    fn submit(&mut self, next: Next) -> Result<(), Failure> {
        let Next { job, stdin } = next;
        if let Some(log) = &self.log
            && log.has(job.seq, &job.display())?
        {
            self.bar.inc(1);
            return Ok(());
        }
        let view = self.client.load_balanced_view().with_options(self.options.clone());
        let sent = stdin.as_ref().map_or(0, Bytes::len);
        let result = view.process(job.task(self.cwd.clone()), stdin)?;
        let index = self.submitted;
        self.submitted += 1;
        self.running.insert(index, Running { job, msg_id: result.msg_id().clone(), sent });
        self.waiting.push(Box::pin(async move {
            let ended = result.get().await;
            (index, ended, result.metadata())
        }));
        Ok(())
    }

    /// Takes the end of one job, and prints what can be printed. The inner error: nobody reads it.
    async fn ended(
        &mut self,
        index: usize,
        result: Result<ProcessResult, TaskError>,
        metadata: Option<Metadata>,
    ) -> Result<io::Result<()>, Failure> {
        let Some(Running { job, sent, msg_id }) = self.running.remove(&index) else { return Ok(Ok(())) };
        if self.is_over && matches!(result, Err(TaskError::Aborted { .. })) {
            // It was taken back before it began.
            return Ok(Ok(()));
        }
        self.bar.inc(1);
        let ended = Ended { job, msg_id, sent, result, metadata };
        if let (Some(folder), Ok(result)) = (&self.args.results, &ended.result) {
            let written = results::write(folder, &ended.job, result, ended.spooled(self.client)).await;
            written.map_err(|error| {
                Failure::new(error).hint(format!("what the programs write cannot be kept in `{}`", folder.display()))
            })?;
        }
        // Last: what the log has is not run again, so all that is kept of it must be there by now.
        if let Some(log) = &mut self.log {
            log.write(&ended.entry())?;
        }
        self.tally.done += 1;
        if let Some(reason) = ended.failure() {
            self.tally.failed += 1;
            self.last_failed = Some(ended.exit_code().unwrap_or(1));
            if self.failures.len() < NAMED_FAILURES {
                self.failures.push(format!("`{}`: {reason}", ended.job.display()));
            }
            self.bar.set_message(format!("{} failed", self.tally.failed));
        }
        if !self.args.keep_order {
            return Ok(self.print(&ended).await);
        }
        self.early_bytes += ended.size();
        self.early.insert(index, ended);
        while let Some(ended) = self.early.remove(&self.next) {
            self.next += 1;
            self.early_bytes -= ended.size();
            if let Err(error) = self.print(&ended).await {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Prints what was kept for a turn that never came.
    async fn print_rest(&mut self) -> io::Result<()> {
        for ended in std::mem::take(&mut self.early).into_values() {
            self.print(&ended).await?;
        }
        Ok(())
    }

    async fn print(&self, ended: &Ended) -> io::Result<()> {
        let Ok(result) = &ended.result else { return Ok(()) };
        let tag = self.args.tag.then(|| ended.job.values.join(" "));
        let Some(spooled) = ended.spooled(self.client) else {
            return self.bar.suspend(|| print(result, tag.as_deref()));
        };
        // It is too much to have at once: it goes by in parts, and the bar must wait.
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        let printed = print_spooled(result, tag.as_deref(), &spooled).await;
        self.bar.set_draw_target(target(self.args));
        spooled.release().await;
        printed
    }

    /// Begins nothing more. What waits is taken back, and what runs is stopped, unless it may end (`soon`).
    async fn halt(&mut self, soon: bool) {
        (self.is_over, self.is_halted) = (true, true);
        if !soon {
            return self.give_up().await;
        }
        let msg_ids: Vec<MsgId> = self.running.values().map(|running| running.msg_id.clone()).collect();
        if let Err(error) = self.client.abort(&msg_ids, Targets::All).await {
            say(&format!("note: what waits could not be taken back: {error}"));
        }
    }

    /// Aborts what waits, stops what runs, and waits a little for it.
    async fn give_up(&mut self) {
        let msg_ids: Vec<MsgId> = self.running.values().map(|running| running.msg_id.clone()).collect();
        let stop = async {
            let _ = self.client.stop(&msg_ids, Targets::All).await;
            while self.waiting.next().await.is_some() {}
        };
        let _ = tokio::time::timeout(ABORT_TIMEOUT, stop).await;
        self.waiting.clear();
    }

    fn summary(&self) -> ExitCode {
        let Tally { done, failed } = self.tally;
        if let Halt::When { what, .. } = self.args.halt
            && self.is_halted
        {
            say(&format!("stopped after {done} programs, as `--halt` says; {failed} failed"));
            if what == What::Success {
                return ExitCode::SUCCESS;
            }
        }
        if failed == 0 {
            return ExitCode::SUCCESS;
        }
        say(&format!("error: {failed} of {done} programs failed:"));
        self.failures.iter().for_each(|failure| say(&format!("  {failure}")));
        if failed > self.failures.len() as u64 {
            say(&format!("  and {} more", failed - self.failures.len() as u64));
        }
        match self.last_failed.filter(|_| self.is_halted) {
            Some(code) => ExitCode::from(u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1)),
            None => ExitCode::FAILURE,
        }
    }
}

/// Where progress is shown: nowhere, unless stderr is a terminal.
fn target(args: &MapArgs) -> ProgressDrawTarget {
    if args.no_bar { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

/// Prints what a program wrote of which its engine has more than is in the result.
async fn print_spooled(result: &ProcessResult, tag: Option<&str>, spooled: &Spooled<'_>) -> io::Result<()> {
    let (mut stdout, mut stderr) = (Tagged::new(io::stdout(), tag), Tagged::new(io::stderr(), tag));
    let streams: [(ProgramStream, &Bytes, u64, &mut dyn Write); 2] = [
        (ProgramStream::Stdout, &result.stdout, result.outcome.stdout_file_bytes, &mut stdout),
        (ProgramStream::Stderr, &result.stderr, result.outcome.stderr_file_bytes, &mut stderr),
    ];
    for (stream, head, all, to) in streams {
        let written = spooled.rest(stream, head, all, to).await;
        // Nobody to read the errors is no reason to stop.
        written.or_else(|error| if stream == ProgramStream::Stderr { Ok(()) } else { Err(error) })?;
    }
    say_dropped(result);
    Ok(())
}

/// Prints what a program wrote, as it wrote it, or with a tag before each line.
fn print(result: &ProcessResult, tag: Option<&str>) -> io::Result<()> {
    let mut stdout = Tagged::new(io::stdout().lock(), tag);
    stdout.write_all(&result.stdout)?;
    stdout.flush()?;
    // Nobody to read the errors is no reason to stop.
    let _ = Tagged::new(io::stderr(), tag).write_all(&result.stderr);
    say_dropped(result);
    Ok(())
}

fn say_dropped(result: &ProcessResult) {
    for (name, dropped) in
        [("stdout", result.outcome.stdout_dropped_bytes), ("stderr", result.outcome.stderr_dropped_bytes)]
    {
        if dropped > 0 {
            say(&format!(
                "warning: {dropped} bytes of a program's {name} were left out: it wrote more than its engine keeps"
            ));
        }
    }
}

/// Begins each line with a tag, if there is one.
struct Tagged<'a, W> {
    to: W,
    tag: Option<&'a str>,
    /// Whether the next byte begins a line.
    at_start: bool,
}

impl<'a, W: Write> Tagged<'a, W> {
    fn new(to: W, tag: Option<&'a str>) -> Self {
        Self { to, tag, at_start: true }
    }
}

impl<W: Write> Write for Tagged<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tag) = self.tag else { return self.to.write(bytes) };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_start {
                self.to.write_all(tag.as_bytes())?;
                self.to.write_all(b"\t")?;
            }
            self.to.write_all(line)?;
            self.at_start = line.ends_with(b"\n");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
