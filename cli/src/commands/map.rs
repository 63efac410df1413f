//! `remuda map`: one process task for each value.

mod embedded;
mod template;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use remuda_client::{Client, ConnectError, ConnectOptions, MsgId, ProcessResult, Targets, TaskError};
use remuda_cluster::LocalCluster;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::map::MapArgs;
use crate::commands::cluster::cores;
use crate::failure::{Failure, Outcome};
use template::Job;

/// Most tasks that are submitted and not finished, where `-n` does not say less: enough to keep thousands of engines busy,
/// few enough to hold in memory.
const WINDOW: usize = 10_000;
/// Most failures that are named at the end.
const NAMED_FAILURES: usize = 20;
/// How long replies to aborted tasks are awaited after a Ctrl-C.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &MapArgs) -> Outcome {
    let jobs = template::jobs(&args.command)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From the first moment on, so that a Ctrl-C during the start leaves nothing behind either.
        let mut interrupts = Interrupts::new()?;
        let cluster = tokio::select! {
            cluster = Cluster::find(args, &jobs) => cluster?,
            signal = interrupts.next() => return Ok(ExitCode::from(128 + signal)),
        };
        let code = Map::new(args, &cluster, &jobs).run(&mut interrupts).await;
        cluster.end();
        code
    })
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

    async fn find(args: &MapArgs, jobs: &[Job]) -> Result<Self, Failure> {
        if !args.embedded
            && let Some((client, engines)) = running(args).await?
        {
            let window = args.jobs.map_or(WINDOW, usize::from);
            return Ok(Self { client, embedded: None, window, engines });
        }
        // Here the engines have the same programs as we: what is missing is missing for all.
        template::check_programs(jobs)?;
        let engines = args.jobs.map_or_else(cores, usize::from).min(jobs.len());
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
    let options = ConnectOptions::file(&file).timeout(Duration::from_secs_f64(args.timeout));
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

/// How one job ended.
enum Ended {
    Program(ProcessResult),
    Task(TaskError),
}

/// The run of all jobs.
struct Map<'a> {
    client: &'a Client,
    jobs: &'a [Job],
    retries: u32,
    window: usize,
    bar: ProgressBar,
    /// Jobs that ended before one that comes earlier did.
    early: BTreeMap<usize, Ended>,
    /// The job whose output is printed next.
    next: usize,
    /// What is said of the first failures.
    failures: Vec<String>,
    failed: usize,
}

impl<'a> Map<'a> {
    fn new(args: &MapArgs, cluster: &'a Cluster, jobs: &'a [Job]) -> Self {
        // Draws nothing unless stderr is a terminal.
        let bar = ProgressBar::with_draw_target(Some(jobs.len() as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            client: &cluster.client,
            jobs,
            retries: cluster.retries(args.retries),
            window: cluster.window,
            bar,
            early: BTreeMap::new(),
            next: 0,
            failures: Vec::new(),
            failed: 0,
        }
    }

    async fn run(mut self, interrupts: &mut Interrupts) -> Outcome {
        let view = self.client.load_balanced_view().retries(self.retries);
        let cwd = std::env::current_dir().ok().and_then(|dir| dir.into_os_string().into_string().ok());
        let mut waiting = FuturesUnordered::new();
        let mut outstanding: BTreeMap<usize, MsgId> = BTreeMap::new();
        let mut submitted = 0;
        loop {
            while submitted < self.jobs.len() && waiting.len() < self.window {
                let index = submitted;
                let result = view.process(self.jobs[index].task(cwd.clone()), None)?;
                outstanding.insert(index, result.msg_id().clone());
                waiting.push(async move { (index, result.await) });
                submitted += 1;
            }
            tokio::select! {
                ended = waiting.next() => {
                    let Some((index, result)) = ended else { break };
                    outstanding.remove(&index);
                    if self.ended(index, result).is_err() {
                        // Nobody reads what we print (`| head`): there is no use in going on.
                        self.give_up(outstanding.into_values().collect(), &mut waiting).await;
                        return Ok(ExitCode::from(141));
                    }
                }
                signal = interrupts.next() => {
                    self.bar.abandon();
                    let left = self.jobs.len() - self.next - self.early.len();
                    say(&format!("interrupted: stopping {left} programs that were not finished"));
                    self.give_up(outstanding.into_values().collect(), &mut waiting).await;
                    return Ok(ExitCode::from(128 + signal));
                }
            }
        }
        self.bar.finish_and_clear();
        Ok(self.summary())
    }

    /// Takes the end of one job, and prints all that can be printed in order.
    fn ended(&mut self, index: usize, result: Result<ProcessResult, TaskError>) -> io::Result<()> {
        self.bar.inc(1);
        self.early.insert(index, result.map_or_else(Ended::Task, Ended::Program));
        while let Some(ended) = self.early.remove(&self.next) {
            let job = &self.jobs[self.next];
            self.next += 1;
            let failure = match &ended {
                Ended::Program(result) => {
                    self.bar.suspend(|| print(result))?;
                    result.clone().checked().err().map(|failed| failed.to_string())
                }
                Ended::Task(error) => Some(error.to_string()),
            };
            if let Some(reason) = failure {
                self.failed += 1;
                if self.failures.len() < NAMED_FAILURES {
                    self.failures.push(format!("`{}`: {reason}", job.display()));
                }
                self.bar.set_message(format!("{} failed", self.failed));
            }
        }
        Ok(())
    }

    /// Aborts what waits, stops what runs, and waits a little for it.
    async fn give_up<F: futures::Stream + Unpin>(&self, msg_ids: Vec<MsgId>, waiting: &mut F) {
        let stop = async {
            let _ = self.client.stop(&msg_ids, Targets::All).await;
            while waiting.next().await.is_some() {}
        };
        let _ = tokio::time::timeout(ABORT_TIMEOUT, stop).await;
    }

    fn summary(&self) -> ExitCode {
        if self.failed == 0 {
            return ExitCode::SUCCESS;
        }
        say(&format!("error: {} of {} programs failed:", self.failed, self.jobs.len()));
        self.failures.iter().for_each(|failure| say(&format!("  {failure}")));
        if self.failed > self.failures.len() {
            say(&format!("  and {} more", self.failed - self.failures.len()));
        }
        ExitCode::FAILURE
    }
}

/// Prints what a program wrote, as it wrote it.
fn print(result: &ProcessResult) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&result.stdout)?;
    stdout.flush()?;
    // Nobody to read the errors is no reason to stop.
    let _ = io::stderr().write_all(&result.stderr);
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

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn say(text: &str) {
    eprintln!("{text}");
}
