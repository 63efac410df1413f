//! The rows of the table, and how each is run.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use remuda_instructions::PAYLOAD_BYTES;
use serde::Serialize;

use crate::args::{Kind, SoakArgs, TableArgs, TablePart};
use crate::child::{self, Part};
use crate::controller::{Candidate, Controller, line_up};
use crate::parts::{Event, Load, Order, Outcome, Route};
use crate::report::{self, Bar, Figure, Journal, RowReport, note};
use crate::{broadcast, decision, durability, idle, storm};

/// How long the ends may take to be ready, or one load to be done.
const READY: Duration = Duration::from_secs(90);
const LOAD: Duration = Duration::from_secs(3600);
/// From the first task until the controller is stopped, where it is to be.
const BEFORE_STOP: Duration = Duration::from_secs(1);
/// Least and greatest number of tasks outstanding under load.
const WINDOW: (u64, u64) = (1024, 8192);

/// Throughput that does not depend on the length of the queue, within what two runs on a shared machine differ by.
const FLAT: f64 = 0.85;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Many tasks through the task scheduler.
    Balanced,
    /// Many tasks through the direct queue.
    Direct,
    /// One task at a time through the task scheduler.
    BalancedLatency,
    /// One task at a time through the direct queue.
    DirectLatency,
}

impl What {
    /// Whether tasks go one at a time.
    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::BalancedLatency | Self::DirectLatency)
    }

    fn route(self) -> Route {
        match self {
            Self::Balanced | Self::BalancedLatency => Route::Balanced,
            Self::Direct | Self::DirectLatency => Route::Direct,
        }
    }
}

/// A row: what is measured, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) what: What,
    /// How many engines.
    pub(crate) engines: u32,
    /// Most tasks outstanding on one engine, as the controller is told. It does not bear on the direct queue.
    pub(crate) hwm: u32,
    /// Most tasks outstanding in all, as the client keeps them.
    pub(crate) window: u64,
}

impl Row {
    pub(crate) fn new(what: What, engines: u32, hwm: u32) -> Self {
        // Twice what the engines may hold, so that the controller always has a queue to take from.
        let wanted = if what.route() == Route::Direct { 0 } else { 2 * u64::from(engines) * u64::from(hwm) };
        let window = if what.is_latency() { 1 } else { wanted.clamp(WINDOW.0, WINDOW.1) };
        Self { what, engines, hwm, window }
    }
}

/// CPU time a task, of each part, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuPerTask {
    /// The controller, with all its processes and threads, until it has come to rest.
    pub(crate) controller: f64,
    /// The client.
    pub(crate) client: f64,
    /// All null engines together.
    pub(crate) engines: f64,
}

/// One run of one controller on one row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    /// Which controller.
    pub(crate) controller: &'static str,
    /// The row.
    #[serde(flatten)]
    pub(crate) row: Row,
    /// Which time, from 1.
    pub(crate) round: u32,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// Tasks answered, by the time they took.
    pub(crate) tasks_per_s: f64,
    /// What they cost.
    pub(crate) cpu_us_per_task: CpuPerTask,
    /// How long the controller worked on once the client had every reply, in seconds; 0.1 is as good as not at all.
    pub(crate) settled_s: f64,
    /// Memory of the controller before the first task that is measured, in bytes.
    pub(crate) rss_before_bytes: u64,
    /// The same once it has come to rest after the last.
    pub(crate) rss_after_bytes: u64,
    /// Most memory the controller's processes ever held, each at its own peak, in bytes.
    pub(crate) peak_rss_bytes: u64,
    /// How many processes the controller has.
    pub(crate) processes: usize,
    /// Size of a task's buffer, in bytes.
    pub(crate) payload_bytes: usize,
}

/// What to run: the rows that share a controller's start, and how many tasks.
struct Setup {
    rows: Vec<Row>,
}

impl Setup {
    /// How many engines, and how many tasks each may hold: the same for all rows.
    fn shape(&self) -> (u32, u32) {
        (self.rows[0].engines, self.rows[0].hwm)
    }
}

/// The rows of the whole table, by the start that they share. Rows that no hwm bears on are run at the first one.
fn setups(engines: &[u32], hwms: &[u32]) -> Vec<Setup> {
    let mut setups = Vec::new();
    for (turn, &hwm) in hwms.iter().enumerate() {
        for (place, &count) in engines.iter().enumerate() {
            let mut whats = vec![What::Balanced];
            if turn == 0 {
                whats.push(What::Direct);
            }
            if turn == 0 && place == 0 {
                whats.extend([What::BalancedLatency, What::DirectLatency]);
            }
            setups.push(Setup { rows: whats.into_iter().map(|what| Row::new(what, count, hwm)).collect() });
        }
    }
    setups
}

/// How many tasks a run has, and what happens meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks {
    ours: u64,
    stock: u64,
    /// How many go before; 0: as is usual.
    warm_up: u64,
    /// How long the controller is stopped in their midst.
    stop: Duration,
}

impl Tasks {
    /// So many of every controller, after so many.
    pub(crate) fn all_alike(tasks: u64, warm_up: u64) -> Self {
        Self { ours: tasks, stock: tasks, warm_up, stop: Duration::ZERO }
    }

    fn of(self, kind: Kind, what: What) -> u64 {
        let tasks = if kind == Kind::Stock { self.stock } else { self.ours };
        if what.is_latency() { (tasks / 10).max(100) } else { tasks }
    }
}

/// `remuda-bench table`
pub(crate) fn run(args: &TableArgs) -> Result<ExitCode> {
    let (ours, stock, rounds) = if args.quick { (10_000, 500, 3) } else { (50_000, 2_000, 5) };
    let tasks = Tasks {
        ours: args.tasks.unwrap_or(ours),
        stock: args.stock_tasks.unwrap_or(stock),
        warm_up: 0,
        stop: Duration::ZERO,
    };
    let candidates = line_up(&args.of, &[Kind::Relay, Kind::Remuda, Kind::Stock])?;
    let mut journal = Journal::open("table", args.of.json.as_deref())?;
    if args.hwm.contains(&0) && candidates.iter().any(|candidate| candidate.kind == Kind::Relay) {
        bail!("the plain relay cannot do without a hwm: leave out `--hwm 0` or the relay");
    }
    child::end_in_order()?;
    child::allow_many_files();
    let wants = |part: TablePart| args.parts.is_empty() || args.parts.contains(&part);
    let mut runs = Vec::new();
    if wants(TablePart::Tasks) {
        let setups = setups(&args.engines, &args.hwm);
        perform(&setups, &candidates, tasks, args.rounds.unwrap_or(rounds), &mut journal, &mut runs)?;
    }
    let mut rows = report::rows(&runs);
    let mut sound = runs.iter().all(|run| run.outcome.faults.none());
    // What the plain relay does not have, and what stock would take too long for, is measured of ours alone.
    for ours in candidates.iter().filter(|candidate| candidate.kind == Kind::Remuda) {
        if wants(TablePart::Pending) {
            let (small, large, tasks) = if args.quick { (1000, 20_000, 40_000) } else { (1000, 1_000_000, 1_200_000) };
            let row = Row::new(What::Balanced, 16, 1);
            let setups = [small, large].map(|window| Setup { rows: vec![Row { window, ..row }] });
            let first = runs.len();
            let tasks = Tasks::all_alike(tasks, 0);
            perform(&setups, std::slice::from_ref(ours), tasks, 1, &mut journal, &mut runs)?;
            sound &= runs[first..].iter().all(|run| run.outcome.faults.none());
            rows.extend(pending(&runs[first..]));
        }
        if wants(TablePart::Durability) {
            let (tasks, rounds) = (tasks.ours, args.rounds.unwrap_or(rounds));
            let (reports, is_sound) = durability::measure(ours, tasks, rounds, &mut journal).context("durability")?;
            sound &= is_sound;
            rows.extend(reports);
        }
        if wants(TablePart::Broadcast) {
            let (engines, rounds) = if args.quick { (64, 5) } else { (1024, 20) };
            note(&format!("broadcast to {engines} engines"));
            let broadcasts = broadcast::measure(ours, engines, rounds).context("broadcast")?;
            sound &= broadcasts.is_sound();
            rows.push(broadcasts.report());
        }
        if wants(TablePart::Engines) {
            let storm = storm::measure(ours, if args.quick { 100 } else { 2000 }, 0).context("engines")?;
            sound &= storm.is_sound();
            rows.push(storm.report());
        }
    }
    if wants(TablePart::Idle) {
        for candidate in candidates.iter().filter(|candidate| candidate.kind != Kind::Relay) {
            rows.push(idle::measure(candidate).context("idle")?.report());
        }
    }
    if wants(TablePart::Decisions) {
        rows.extend(decision::measure_all(args.quick).iter().map(decision::Decisions::report));
    }
    for row in &rows {
        journal.write(row)?;
    }
    report::table(&runs, &rows, &journal.machine())?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The row of a long queue, beside a short one.
fn pending(runs: &[Run]) -> Option<RowReport> {
    let [short, long] = runs else { return None };
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Some(RowReport {
        heading: format!("{} tasks queued, beside {}, {}", long.row.window, short.row.window, long.controller),
        figures: vec![
            Figure::new("memory at most, in MB", mb(long.peak_rss_bytes), Bar::AtMost(1000.0)),
            Figure::new("tasks/s, long / short queue", long.tasks_per_s / short.tasks_per_s, Bar::AtLeast(FLAT)),
            Figure::new("memory after, in MB", mb(long.rss_after_bytes), Bar::None),
        ],
    })
}

/// `remuda-bench soak`
pub(crate) fn soak(args: &SoakArgs) -> Result<ExitCode> {
    let stop = Duration::from_secs(args.stop);
    let tasks = Tasks { ours: args.tasks, stock: args.tasks, warm_up: args.warm_up, stop };
    let candidates = line_up(&args.of, &[Kind::Relay, Kind::Remuda])?;
    let mut journal = Journal::open("soak", args.of.json.as_deref())?;
    let row = Row::new(What::Balanced, args.engines, args.hwm);
    let rows = |window: u64| Setup { rows: vec![Row { window, ..row }] };
    let windows = if args.window.is_empty() { vec![row.window] } else { args.window.clone() };
    child::end_in_order()?;
    child::allow_many_files();
    let mut runs = Vec::new();
    let setups: Vec<Setup> = windows.into_iter().map(rows).collect();
    perform(&setups, &candidates, tasks, 1, &mut journal, &mut runs)?;
    report::table(&runs, &report::rows(&runs), &journal.machine())?;
    Ok(if runs.iter().all(|run| run.outcome.faults.none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn perform(
    setups: &[Setup],
    candidates: &[Candidate],
    tasks: Tasks,
    rounds: u32,
    journal: &mut Journal,
    runs: &mut Vec<Run>,
) -> Result<()> {
    for setup in setups {
        for round in 1..=rounds {
            // There and back again, so that none always comes first.
            let order: Vec<&Candidate> =
                if round % 2 == 1 { candidates.iter().collect() } else { candidates.iter().rev().collect() };
            for candidate in order {
                let (engines, hwm) = setup.shape();
                note(&format!("round {round}/{rounds}, {engines} engines, hwm {hwm}: {}", candidate.kind.name()));
                let first = runs.len();
                run_setup(setup, candidate, tasks, round, runs)
                    .with_context(|| format!("`{}` with {engines} engines, hwm {hwm}", candidate.kind.name()))?;
                for run in &runs[first..] {
                    journal.write(run)?;
                }
            }
        }
    }
    Ok(())
}

/// One start of one controller, and all rows of the setup on it.
fn run_setup(setup: &Setup, candidate: &Candidate, tasks: Tasks, round: u32, runs: &mut Vec<Run>) -> Result<()> {
    let (engines, hwm) = setup.shape();
    let mut standing = Standing::start(candidate, engines, hwm)?;
    for &row in &setup.rows {
        runs.push(standing.run(row, tasks, round)?);
    }
    if !tasks.stop.is_zero() {
        // Null engines register once: one that was taken for dead is not there again.
        let witness = Part::start("client", &standing.controller.client)?;
        witness.ready(READY).context("the controller lost engines while it was stopped")?;
        note(&format!(
            "the controller was stopped for {} s: all {engines} engines are still there",
            tasks.stop.as_secs()
        ));
    }
    Ok(())
}

/// A controller with its ends, ready for a load.
pub(crate) struct Standing {
    kind: Kind,
    client: Part,
    null_engines: Part,
    /// The controller.
    pub(crate) controller: Controller,
}

impl Standing {
    /// Starts a controller for so many engines, the engines, and a client.
    pub(crate) fn start(candidate: &Candidate, engines: u32, hwm: u32) -> Result<Self> {
        let controller = Controller::start(candidate, engines, hwm)?;
        let null_engines = Part::start("null-engines", &controller.engines)?;
        null_engines.ready(READY)?;
        controller.knows_its_engines()?;
        let client = Part::start("client", &controller.client)?;
        client.ready(READY).with_context(|| controller.last_words())?;
        Ok(Self { kind: candidate.kind, client, null_engines, controller })
    }

    /// Runs the load of a row.
    pub(crate) fn run(&mut self, row: Row, tasks: Tasks, round: u32) -> Result<Run> {
        let Self { kind, client, null_engines, controller } = self;
        let (route, window, warm_up) = (row.what.route(), row.window, tasks.warm_up);
        let load = Load { route, tasks: tasks.of(*kind, row.what), warm_up, window };
        client.tell(&Order::Prepare(load))?;
        let Event::Warm = client.hear(LOAD)? else { bail!("the client did not warm up") };
        let trees = [controller.tree()?, client.tree()?, null_engines.tree()?];
        let rss_before_bytes = trees[0].memory()?.rss;
        let before = [trees[0].settle()?, trees[1].cpu()?, trees[2].cpu()?];
        client.tell(&Order::Go)?;
        if !tasks.stop.is_zero() {
            stop_for(controller, tasks.stop)?;
        }
        let Event::Done(outcome) = client.hear(LOAD)? else { bail!("the client did not finish") };
        let answered = Instant::now();
        let after = [trees[0].settle()?, trees[1].cpu()?, trees[2].cpu()?];
        let settled_s = answered.elapsed().as_secs_f64();
        let spent = |part: usize| after[part].since(&before[part]).as_secs_f64() * 1e6 / load.tasks as f64;
        if !outcome.faults.none() {
            note(&format!("NOT SOUND: {:?}\n{}", outcome.faults, controller.last_words()));
        }
        let memory = trees[0].memory()?;
        Ok(Run {
            controller: kind.name(),
            row,
            round,
            tasks_per_s: outcome.tasks.saturating_sub(outcome.faults.lost) as f64 / outcome.seconds,
            outcome,
            cpu_us_per_task: CpuPerTask { controller: spent(0), client: spent(1), engines: spent(2) },
            settled_s,
            rss_before_bytes,
            rss_after_bytes: memory.rss,
            peak_rss_bytes: memory.peak_rss,
            processes: trees[0].members()?.len(),
            payload_bytes: PAYLOAD_BYTES,
        })
    }
}

/// Stops the controller's processes in the midst of a load, as a debugger or a laptop that sleeps does.
fn stop_for(controller: &Controller, time: Duration) -> Result<()> {
    std::thread::sleep(BEFORE_STOP);
    let tree = controller.tree()?;
    tree.signal(Signal::SIGSTOP)?;
    std::thread::sleep(time);
    tree.signal(Signal::SIGCONT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_run_once() {
        let rows: Vec<Row> = setups(&[4, 16, 64], &[1, 64]).into_iter().flat_map(|setup| setup.rows).collect();
        let count = |what| rows.iter().filter(|row| row.what == what).count();
        assert_eq!((count(What::Balanced), count(What::Direct)), (6, 3));
        assert_eq!((count(What::BalancedLatency), count(What::DirectLatency)), (1, 1));
        let mut unique = rows.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), rows.len());
    }

    #[test]
    fn the_window_keeps_the_engines_busy_without_bound_on_neither_side() {
        assert_eq!(Row::new(What::Balanced, 4, 1).window, 1024);
        assert_eq!(Row::new(What::Balanced, 16, 64).window, 2048);
        assert_eq!(Row::new(What::Balanced, 64, 64).window, 8192);
        assert_eq!(Row::new(What::Direct, 64, 64).window, 1024);
        assert_eq!(Row::new(What::DirectLatency, 64, 64).window, 1);
    }
}
