//! Programs: `remuda map` beside what people use for the same, all in one run, in turn.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::args::ProgramsArgs;
use crate::child::{self, Program, wait_for};
use crate::controller::find_remuda;
use crate::report::{Journal, note, print};
use crate::statistics::{median, paired_ratio};

/// How many run at a time, whoever runs them.
const JOBS: usize = 2;
/// How long a cluster may take to start.
const START: Duration = Duration::from_secs(30);
/// One HyperQueue job with a task for each line of a file, timed from submission to end.
const HYPERQUEUE: &str = r#"
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    job = Job()
    for line in open(sys.argv[1]):
        job.program(sys.argv[2:] + [line.rstrip("\n")], stdout=None, stderr=None)
    start = time.monotonic()
    submitted = client.submit(job)
    client.wait_for_jobs([submitted], raise_on_error=True)
    print("SECONDS", time.monotonic() - start)
"#;

/// Who runs the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Runner {
    /// A loop in each of two threads that starts a program and waits for it: the least that it can cost.
    Loop,
    Xargs,
    /// `remuda map`, which starts its own cluster.
    Map,
    /// `remuda map` on a cluster that runs.
    MapOnCluster,
    Parallel,
    HyperQueue,
}

impl Runner {
    fn name(self) -> &'static str {
        match self {
            Self::Loop => "bare loop",
            Self::Xargs => "xargs -P2",
            Self::Map => "remuda map",
            Self::MapOnCluster => "map, cluster",
            Self::Parallel => "parallel -j2",
            Self::HyperQueue => "HyperQueue",
        }
    }
}

/// What is run: a program, and values.
struct Load {
    name: String,
    program: Vec<String>,
    values: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Run<'a> {
    load: &'a str,
    runner: Runner,
    seconds: f64,
    rate: f64,
    /// CPU time of the controller for each program, in microseconds; only with a cluster that runs.
    controller_us: Option<f64>,
}

/// A cluster that runs.
struct Cluster {
    controller: Program,
    _engine: Program,
    profile: String,
}

struct Bench {
    remuda: PathBuf,
    hyperqueue: Option<PathBuf>,
    folder: tempfile::TempDir,
    cluster: Cluster,
}

/// `remuda-bench programs`
pub(crate) fn run(args: &ProgramsArgs) -> Result<ExitCode> {
    child::end_in_order()?;
    let remuda = find_remuda(args.remuda.as_deref())?;
    let folder = tempfile::Builder::new().prefix("remuda-bench-").tempdir()?;
    let cluster = Cluster::start(&remuda, folder.path())?;
    let bench = Bench { remuda, hyperqueue: args.hyperqueue.clone(), folder, cluster };
    let mut runners = vec![Runner::Loop, Runner::Xargs, Runner::Map, Runner::MapOnCluster];
    if has("parallel") {
        runners.push(Runner::Parallel);
    } else {
        note("without GNU parallel: there is none");
    }
    if bench.hyperqueue.is_some() {
        runners.push(Runner::HyperQueue);
    } else {
        note("without HyperQueue: name a Python that has it with `--hyperqueue`");
    }
    let mut journal = Journal::open("programs", args.json.as_deref())?;
    let mut text = format!("{}\n", journal.machine());
    for load in bench.loads(args)? {
        let mut rates: Vec<Vec<Option<f64>>> = vec![Vec::new(); runners.len()];
        let mut controller = Vec::new();
        for round in 0..args.rounds {
            for (runner, rates) in runners.iter().zip(&mut rates) {
                note(&format!("{}, round {}: {}", load.name, round + 1, runner.name()));
                let run = bench.measure(*runner, &load)?;
                rates.push(Some(run.rate));
                controller.extend(run.controller_us);
                journal.write(&run)?;
            }
        }
        writeln!(text, "\n{}\n{:<16}{:>12}{:>14}", load.name, "", "programs/s", "x bare loop")?;
        for (runner, own) in runners.iter().zip(&rates) {
            let rate = median(own.iter().flatten().copied()).unwrap_or(f64::NAN);
            let ratio = paired_ratio(own, &rates[0]).unwrap_or(f64::NAN);
            writeln!(text, "{:<16}{rate:>12.0}{ratio:>14.2}", runner.name())?;
        }
        let map = runners.iter().position(|runner| *runner == Runner::MapOnCluster).unwrap_or(0);
        for (other, name) in [(Runner::Parallel, "GNU parallel"), (Runner::HyperQueue, "HyperQueue")] {
            let Some(at) = runners.iter().position(|runner| *runner == other) else { continue };
            let times = paired_ratio(&rates[map], &rates[at]).unwrap_or(f64::NAN);
            writeln!(text, "map on a cluster is {times:.1} x {name}")?;
        }
        let us = median(controller).unwrap_or(f64::NAN);
        writeln!(text, "CPU of the controller for each program: {us:.0} us")?;
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn has(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Cluster {
    fn start(remuda: &Path, folder: &Path) -> Result<Self> {
        let profile = format!("--profile-dir={}", folder.join("profile").display());
        let controller = Program::start(
            remuda,
            &["controller", &*profile, "--ping=50", "--max-heart-misses=600", "--nodb", "--hwm=16"],
            folder,
        )?;
        let slots = JOBS.to_string();
        let engine = Program::start(remuda, &["engine", &*profile, "--slots", &*slots, "--log-level=warn"], folder)?;
        wait_for("the engine to be there", START, || {
            let status = Command::new(remuda).args(["status", &profile]).stdin(Stdio::null()).output()?;
            Ok(String::from_utf8_lossy(&status.stdout).contains("native").then_some(()))
        })?;
        Ok(Self { controller, _engine: engine, profile })
    }
}

impl Bench {
    fn loads(&self, args: &ProgramsArgs) -> Result<Vec<Load>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let numbers = |count: u32| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
        let data = self.folder.path().join("data");
        fs::create_dir(&data)?;
        let mut files = Vec::new();
        for file in 0..50 {
            // Text that compresses as text does.
            let lines = (0..20_000_u64).map(|n| format!("{} {}", n * n % 9973, n * (file + 7) % 7919));
            let text = lines.collect::<Vec<_>>().join(
                "
",
            );
            let path = data.join(format!("{file}.txt"));
            fs::write(&path, text)?;
            files.push(path.display().to_string());
        }
        Ok(vec![
            Load {
                name: format!("{} x true", args.programs),
                program: words(&["true"]),
                values: numbers(args.programs),
            },
            Load {
                name: "200 x a program of 20 ms".to_owned(),
                program: words(&["sh", "-c", "exec sleep 0.02"]),
                values: numbers(200),
            },
            Load { name: "50 files through gzip".to_owned(), program: words(&["gzip", "-kf"]), values: files },
        ])
    }

    /// Runs all of a load once.
    fn measure<'a>(&self, runner: Runner, load: &'a Load) -> Result<Run<'a>> {
        let list = self.folder.path().join("values");
        fs::write(&list, load.values.join("\n") + "\n")?;
        let list = list.display().to_string();
        let controller = self.cluster.controller.tree()?;
        let before = controller.settle()?;
        let start = Instant::now();
        let mut told = None;
        match runner {
            Runner::Loop => run_loop(load)?,
            Runner::Xargs => finish(Command::new("xargs").args(["-P2", "-n1", "-a", &list]).args(&load.program))?,
            Runner::Parallel => finish(
                Command::new("parallel").args(["--will-cite", "-q", "-j2", "-a", &list]).args(&load.program[..]),
            )?,
            Runner::Map | Runner::MapOnCluster => {
                let place = if runner == Runner::Map { "--embedded" } else { &self.cluster.profile };
                let mut map = Command::new(&self.remuda);
                if runner == Runner::Map {
                    map.args(["map", place, "-n2", "--"]);
                } else {
                    map.args(["map", place, "--"]);
                }
                finish(map.args(&load.program).args(["::::", &list]))?;
            }
            Runner::HyperQueue => {
                let python = self.hyperqueue.as_ref().context("no HyperQueue")?;
                let mut command = Command::new(python);
                command.args(["-c", HYPERQUEUE, &list]).args(&load.program).current_dir(self.folder.path());
                let done = command.stdin(Stdio::null()).output().context("cannot run HyperQueue")?;
                let said = String::from_utf8_lossy(&done.stdout);
                let seconds = said.lines().find_map(|line| line.strip_prefix("SECONDS ")?.parse().ok());
                told = Some(seconds.with_context(|| format!("HyperQueue: {}", String::from_utf8_lossy(&done.stderr)))?);
            }
        }
        let seconds = told.unwrap_or_else(|| start.elapsed().as_secs_f64());
        let count = load.values.len() as f64;
        let spent = controller.settle()?.since(&before);
        let controller_us = (runner == Runner::MapOnCluster).then(|| spent.as_secs_f64() * 1e6 / count);
        Ok(Run { load: &load.name, runner, seconds, rate: count / seconds, controller_us })
    }
}

/// Starts and waits, in as many threads as run at a time.
fn run_loop(load: &Load) -> Result<()> {
    let parts = load.values.chunks(load.values.len().div_ceil(JOBS));
    thread::scope(|scope| {
        let run = |values: &'_ [String]| -> Result<()> {
            for value in values {
                finish(Command::new(&load.program[0]).args(&load.program[1..]).arg(value))?;
            }
            Ok(())
        };
        let threads: Vec<_> = parts.map(|values| scope.spawn(move || run(values))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a loop does not panic"))
    })
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
