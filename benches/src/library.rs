//! The Rust client and engine libraries: how fast a client submits, what a mapped item costs, and how much memory a large buffer
//! takes in each process on its way there and back.
//!
//! The client of each row is a process of its own, so that CPU time and peak of memory are its alone.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use remuda_client::blocking::Wait;
use remuda_client::{Buffer, Client, ConnectOptions, LoadBalancedView, QueryError};
use remuda_engine::{Engine, read_engine};
use serde::{Deserialize, Serialize};

use crate::args::{LibraryArgs, LibraryClientArgs, Load};
use crate::child::{self, Program, wait_for};
use crate::controller::find_remuda;
use crate::process::{Memory, Tree};
use crate::report::{Journal, note, print};
use crate::statistics::median;

remuda_client::functions! {
    /// What it is given.
    fn same(number: u64) -> u64;
    /// What it is given.
    fn back(buffer: Buffer) -> Buffer;
}

/// How long a cluster may take to start.
const START: Duration = Duration::from_secs(30);
/// How long an answer is waited for that does not come.
const GLIMPSE: Duration = Duration::from_millis(20);
const MIB: u64 = 1024 * 1024;

/// What a client measured.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// From the first call to the last result; of `submit`, until the controller had read all, and of `socket`, until all was
    /// handed to the socket.
    seconds: f64,
    /// CPU time of the client.
    cpu_seconds: f64,
    /// The most memory that the client held, and what it held before.
    memory: Memory,
    before: Memory,
}

#[derive(Debug, Serialize)]
struct Run<'a> {
    load: &'a str,
    count: u64,
    #[serde(flatten)]
    measured: Measured,
}

struct Cluster {
    controller: Program,
    engine: Program,
    file: String,
}

impl Cluster {
    fn start(remuda: &Path, folder: &Path) -> Result<Self> {
        let profile = folder.join("profile");
        let argument = format!("--profile-dir={}", profile.display());
        let arguments = ["controller", &*argument, "--nodb", "--hwm=16", "--ping=1000", "--max-heart-misses=100"];
        let controller = Program::start(remuda, &arguments, folder)?;
        let [engine, client] =
            ["engine", "client"].map(|end| profile.join(format!("security/ipcontroller-{end}.json")));
        wait_for("the controller's files", START, || Ok((engine.is_file() && client.is_file()).then_some(())))?;
        let this = std::env::current_exe().context("cannot find this program")?;
        let engine = Program::start(&this, &["library-engine", &*engine.to_string_lossy()], folder)?;
        Ok(Self { controller, engine, file: client.to_string_lossy().into_owned() })
    }

    fn measure(&self, load: Load, count: u64, chunk: usize) -> Result<Measured> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let (count, chunk) = (count.to_string(), chunk.to_string());
        let load = clap::ValueEnum::to_possible_value(&load).context("a load has a name")?;
        let controller = self.controller.pid().to_string();
        let arguments = ["library-client", &*self.file, load.get_name(), &*count, &*chunk, &*controller];
        let done = Command::new(this).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        ensure!(done.status.success(), "the client ended with {}", done.status);
        Ok(serde_json::from_slice(&done.stdout)?)
    }
}

/// `remuda-bench library`
pub(crate) fn run(args: &LibraryArgs) -> Result<ExitCode> {
    child::end_in_order()?;
    let remuda = find_remuda(args.remuda.as_deref())?;
    let mut journal = Journal::open("library", args.json.as_deref())?;
    let mut text = format!("{}\n\n", journal.machine());
    writeln!(text, "{:<34}{:>12}{:>16}{:>14}", "", "a second", "client CPU, us", "peak, MiB")?;
    let rows = [
        ("submitted, into the socket", Load::Socket, args.tasks, 1),
        ("submitted, to the controller", Load::Submit, args.tasks, 1),
        ("called and answered", Load::Call, args.tasks, 1),
        ("mapped, a task each", Load::Map, args.items, 1),
        ("mapped, 100 items a task", Load::Map, args.items, 100),
    ];
    for (name, load, count, chunk) in rows {
        let (mut rates, mut cpu, mut peak) = (Vec::new(), Vec::new(), 0);
        for round in 0..args.rounds {
            note(&format!("{name}, round {}", round + 1));
            let folder = tempfile::Builder::new().prefix("remuda-bench-").tempdir()?;
            let measured = Cluster::start(&remuda, folder.path())?.measure(load, count, chunk)?;
            rates.push(count as f64 / measured.seconds);
            cpu.push(measured.cpu_seconds * 1e6 / count as f64);
            peak = peak.max(measured.memory.peak_rss);
            journal.write(&Run { load: name, count, measured })?;
        }
        let (rate, cpu) = (median(rates).unwrap_or(f64::NAN), median(cpu).unwrap_or(f64::NAN));
        writeln!(text, "{name:<34}{rate:>12.0}{cpu:>16.2}{:>14.1}", peak as f64 / MIB as f64)?;
    }
    buffer(&remuda, args.buffer_mib, &mut text)?;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A large buffer there and back: the peak of each process, in times its size.
fn buffer(remuda: &Path, mib: u64, text: &mut String) -> Result<()> {
    note(&format!("a buffer of {mib} MiB"));
    let folder = tempfile::Builder::new().prefix("remuda-bench-").tempdir()?;
    let cluster = Cluster::start(remuda, folder.path())?;
    // Once with a small one, so that what is there anyway is there.
    cluster.measure(Load::Buffer, 1, 1)?;
    let trees = [("controller", cluster.controller.tree()?), ("engine", cluster.engine.tree()?)];
    let before = trees.map(|(name, tree)| (name, tree, tree.memory().unwrap_or_default()));
    let client = cluster.measure(Load::Buffer, mib, 1)?;
    writeln!(text, "\na buffer of {mib} MiB there and back: {:.2} s", client.seconds)?;
    let size = (mib * MIB) as f64;
    let mut row = |name: &str, before: Memory, after: Memory| {
        let (peak, left) = (after.peak_rss.saturating_sub(before.rss), after.rss.saturating_sub(before.rss));
        let [peak, left] = [peak, left].map(|bytes| bytes as f64);
        writeln!(
            text,
            "{name:<12} peak {:>6.0} MiB = {:.2} x the buffer; afterwards {:.2} x",
            peak / MIB as f64,
            peak / size,
            left / size
        )
    };
    row("client", client.before, client.memory)?;
    for (name, tree, before) in before {
        row(name, before, tree.memory()?)?;
    }
    Ok(())
}

/// (internal) An engine.
pub(crate) fn engine(file: &Path) -> Result<ExitCode> {
    let engine = Engine::builder().register(same, |number| number).register(back, |buffer| buffer).build()?;
    engine.run(&read_engine(file)?)?;
    Ok(ExitCode::SUCCESS)
}

/// (internal) A client.
pub(crate) fn client(args: &LibraryClientArgs) -> Result<ExitCode> {
    let options = ConnectOptions::file(&args.file);
    let options = if args.load == Load::Socket { options.query_timeout(GLIMPSE) } else { options };
    let client = Client::connect(options).wait()?;
    client.wait_for_engines(1, START).wait()?;
    let view = client.load_balanced_view().quiet(true).chunk_size(args.chunk);
    let tree = Tree::of(std::process::id())?;
    let (before, cpu, begun) = (tree.memory()?, cpu_time()?, Instant::now());
    let seconds = match args.load {
        Load::Submit => submit(&client, &view, args.count)?,
        Load::Socket => {
            let controller = Pid::from_raw(args.controller);
            kill(controller, Signal::SIGSTOP)?;
            let seconds = into_the_socket(&client, &view, args.count);
            kill(controller, Signal::SIGCONT)?;
            seconds?
        }
        Load::Call => call(&view, args.count)?,
        Load::Map => map(&view, args.count)?,
        Load::Buffer => there_and_back(&view, args.count)?,
    };
    let seconds = seconds.unwrap_or_else(|| begun.elapsed().as_secs_f64());
    let measured = Measured { seconds, cpu_seconds: cpu_time()? - cpu, memory: tree.memory()?, before };
    print(&serde_json::to_string(&measured)?)?;
    // What was only submitted is waited for by nobody.
    Ok(ExitCode::SUCCESS)
}

/// CPU time of this process, in seconds.
fn cpu_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

/// Submits, and says how long it took until all was handed to the socket, without what the controller would take of the processor
/// for it: that is stopped. What is asked after the tasks is sent behind them, and given up so much later.
fn into_the_socket(client: &Client, view: &LoadBalancedView, count: u64) -> Result<Option<f64>> {
    let begun = Instant::now();
    for number in 0..count {
        drop(view.call(same, number)?);
    }
    let asked = client.result_status(&[]).wait();
    let taken = begun.elapsed();
    ensure!(matches!(asked, Err(QueryError::NoAnswer { .. })), "a stopped controller answers: {asked:?}");
    Ok(Some(taken.saturating_sub(GLIMPSE).as_secs_f64()))
}

/// Submits, and says how long it took until the controller had read all: what is asked after that is answered then.
fn submit(client: &Client, view: &LoadBalancedView, count: u64) -> Result<Option<f64>> {
    let begun = Instant::now();
    for number in 0..count {
        drop(view.call(same, number)?);
    }
    client.result_status(&[]).wait()?;
    Ok(Some(begun.elapsed().as_secs_f64()))
}

/// Submits all, then waits for each.
fn call(view: &LoadBalancedView, count: u64) -> Result<Option<f64>> {
    let results: Vec<_> = (0..count).map(|number| view.call(same, number)).collect::<Result<_, _>>()?;
    let all = async {
        for (number, result) in (0..).zip(&results) {
            ensure!(result.get().await? == number, "result {number} is another's");
        }
        Ok(())
    };
    all.wait()?;
    Ok(None)
}

fn map(view: &LoadBalancedView, count: u64) -> Result<Option<f64>> {
    let all = async {
        let mut results = std::pin::pin!(view.imap(same, 0..count).ordered());
        let mut number = 0;
        while let Some(result) = results.next().await {
            ensure!(result? == number, "result {number} is another's");
            number += 1;
        }
        ensure!(number == count, "{number} of {count} results");
        Ok(())
    };
    all.wait()?;
    Ok(None)
}

fn there_and_back(view: &LoadBalancedView, mib: u64) -> Result<Option<f64>> {
    let buffer = Buffer::from(vec![7; usize::try_from(mib * MIB)?]);
    let begun = Instant::now();
    let back = view.call(back, buffer.clone())?.wait()?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(back == buffer, "what came back is something else");
    Ok(Some(seconds))
}
