//! `remuda map`: one process task for each row of values.

mod blocks;
mod embedded;
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
use remuda_client::{Client, ConnectError, ConnectOptions, Metadata, MsgId, ProcessResult, Targets, TaskError};
use remuda_cluster::LocalCluster;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;

use crate::args::map::{Halt, MapArgs, Tally, What};
use crate::commands::cluster::cores;
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
            cluster = Cluster::find(args, &jobs) => cluster?,
            signal = interrupts.next() => return Ok(ExitCode::from(128 + signal)),
        };
        let count = jobs.known_count();
        let code = Map::new(args, &cluster, log, count).run(jobs.start()?, &mut interrupts).await;
        cluster.end();
        code
    })
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

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// Where the programs run.
struct Cluster {
    client: Client,
    /// The cluster that was started for this command alone, if there was none.
    embedded: Option<(LocalCluster, tempfile::TempDir)>,
    /// Most tasks outstanding.
    window: usize,
    /// How many engines run programs; `None` if the controller does not say.
    engines: Option<usize>,
}

impl Cluster {
    /// How often a program can be tried again: no engine gets the same task twice, and one that all have tried would wait
    /// for another for ever.
    fn retries(&self, asked: u32) -> u32 {
        let most =
            self.engines.map_or(u32::MAX, |engines| u32::try_from(engines.saturating_sub(1)).unwrap_or(u32::MAX));
        if asked > most {
            say(&format!("note: each retry needs another engine: with {} it is {most} retries at most", most + 1));
        }
        asked.min(most)
    }

    async fn find(args: &MapArgs, jobs: &Jobs) -> Result<Self, Failure> {
        if !args.embedded
            && let Some((client, engines)) = running(args).await?
        {
            let window = args.jobs.map_or(WINDOW, usize::from);
            return Ok(Self { client, embedded: None, window, engines });
        }
        // Here the engines have the same programs as we: what is missing is missing for all.
        jobs.check_program()?;
        let engines = args.jobs.map_or_else(cores, usize::from).min(jobs.known_count().unwrap_or(usize::MAX)).max(1);
        let (client, cluster, folder) = embedded::start(engines).await?;
        Ok(Self { client, embedded: Some((cluster, folder)), window: WINDOW, engines: Some(engines) })
    }

    fn end(self) {
        drop(self.client);
        if let Some((cluster, _folder)) = self.embedded {
            cluster.stop();
        }
    }
}

/// A client of the profile's running cluster, and how many of its engines run programs; `None` if there is no cluster.
async fn running(args: &MapArgs) -> Result<Option<(Client, Option<usize>)>, Failure> {
    let profile = args.place.profile();
    let file = profile.client_file();
    // A place that was named must be right; the default one may well have no cluster.
    let named = !args.place.options().is_empty();
    let options = ConnectOptions::file(&file).timeout(Duration::from_secs_f64(args.connect_timeout));
    let client = match Client::connect(options).await {
        Ok(client) => client,
        Err(ConnectError::NoFile { .. } | ConnectError::Stale { .. }) if !named => return Ok(None),
        Err(error) => {
            return Err(Failure::new(error).hint("use `--embedded` to start a cluster just for this command"));
        }
    };
    let status = client.status().await?;
    let programs = status.remuda.as_ref().map(|remuda| remuda.engines.values().filter(|engine| engine.process).count());
    if let Some(remuda) = &status.remuda
        && programs == Some(0)
    {
        return Err(Failure::new(anyhow::anyhow!(
            "the cluster of `{}` has no engine that runs programs ({} engines in all)",
            file.display(),
            remuda.engines.len()
        ))
        .hint(format!(
            "add one with `remuda engine{}`, or use `--embedded` to start a cluster just for this command",
            args.place.options()
        )));
    }
    Ok(Some((client, programs)))
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
            received: self
                .result
                .as_ref()
                .map_or(0, |result| result.stdout.len() as u64 + result.outcome.stdout_dropped_bytes),
            // A job that was stopped for its time has not done what it should, whatever it said at the end.
            exit_code: outcome
                .filter(|outcome| outcome.success() || outcome.exit_code != Some(0))
                .and_then(|o| o.exit_code)
                .unwrap_or(-1),
            signal: outcome.and_then(|outcome| outcome.signal).unwrap_or(0),
            command: self.job.display(),
        }
    }

    /// What it holds in memory, in bytes.
    fn size(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.stdout.len() + result.stderr.len())
    }
}

/// Replies as they come: the number of the job by submission, and how it ended.
type Waiting = FuturesUnordered<LocalBoxFuture<'static, (usize, Result<ProcessResult, TaskError>, Option<Metadata>)>>;

/// The run of all jobs.
struct Map<'a> {
    args: &'a MapArgs,
    client: &'a Client,
    retries: u32,
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
    fn new(args: &'a MapArgs, cluster: &'a Cluster, log: Option<JobLog>, count: Option<usize>) -> Self {
        // Draws nothing unless stderr is a terminal.
        let target = if args.no_bar { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(count.map(|count| count as u64), target);
        let template = match count {
            Some(_) => "{bar:32} {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}",
            None => "{spinner} {pos} done  {elapsed} elapsed  {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            args,
            client: &cluster.client,
            retries: cluster.retries(args.retries),
            // What is under way when enough have ended runs, so nothing waits for its turn.
            window: match args.halt {
                Halt::Never => cluster.window,
                Halt::When { .. } => cluster.window.min(cluster.engines.unwrap_or_else(cores)).max(1),
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
                    match self.ended(index, result, metadata) {
                        Ok(Ok(())) => {}
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
        if self.print_rest().is_err() {
            return Ok(ExitCode::from(141));
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
        let view = self.client.load_balanced_view().retries(self.retries);
        let sent = stdin.as_ref().map_or(0, Bytes::len);
        let result = view.process(job.task(self.cwd.clone(), self.args.timeout), stdin)?;
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
    fn ended(
        &mut self,
        index: usize,
        result: Result<ProcessResult, TaskError>,
        metadata: Option<Metadata>,
    ) -> Result<io::Result<()>, Failure> {
        let Some(Running { job, sent, .. }) = self.running.remove(&index) else { return Ok(Ok(())) };
        if self.is_over && matches!(result, Err(TaskError::Aborted { .. })) {
            // It was taken back before it began.
            return Ok(Ok(()));
        }
        self.bar.inc(1);
        let ended = Ended { job, sent, result, metadata };
        if let (Some(folder), Ok(result)) = (&self.args.results, &ended.result) {
            results::write(folder, &ended.job, result).map_err(|error| {
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
            return Ok(self.print(&ended));
        }
        self.early_bytes += ended.size();
        self.early.insert(index, ended);
        while let Some(ended) = self.early.remove(&self.next) {
            self.next += 1;
            self.early_bytes -= ended.size();
            if let Err(error) = self.print(&ended) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Prints what was kept for a turn that never came.
    fn print_rest(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.early);
        rest.values().try_for_each(|ended| self.print(ended))
    }

    fn print(&self, ended: &Ended) -> io::Result<()> {
        let Ok(result) = &ended.result else { return Ok(()) };
        let tag = self.args.tag.then(|| ended.job.values.join(" "));
        self.bar.suspend(|| print(result, tag.as_deref()))
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

/// Prints what a program wrote, as it wrote it, or with a tag before each line.
fn print(result: &ProcessResult, tag: Option<&str>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write(&mut stdout, &result.stdout, tag)?;
    stdout.flush()?;
    // Nobody to read the errors is no reason to stop.
    let _ = write(&mut io::stderr(), &result.stderr, tag);
    for (name, dropped) in
        [("stdout", result.outcome.stdout_dropped_bytes), ("stderr", result.outcome.stderr_dropped_bytes)]
    {
        if dropped > 0 {
            say(&format!(
                "warning: {dropped} bytes of a program's {name} were left out: it wrote more than its engine keeps"
            ));
        }
    }
    Ok(())
}

fn write(to: &mut impl Write, text: &[u8], tag: Option<&str>) -> io::Result<()> {
    let Some(tag) = tag else { return to.write_all(text) };
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        to.write_all(tag.as_bytes())?;
        to.write_all(b"\t")?;
        to.write_all(line)?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn say(text: &str) {
    eprintln!("{text}");
}
