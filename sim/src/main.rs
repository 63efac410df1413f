//! `remuda-sim`: runs the simulator on one seed, on many, or on the canary.
#![allow(clippy::print_stderr, reason = "it is a program that talks to people")]
#![allow(
    clippy::disallowed_methods,
    reason = "people want to know how long it took, and fresh seeds come from the time"
)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use remuda_sim::run::{Failure, Plan, run_logged, run_seed};
use remuda_sim::scale::Scale;
use remuda_sim::{FaultLevel, Parameters, Report, canary};

/// Prints a line. Whoever reads may have had enough.
macro_rules! say {
    ($($text:tt)*) => {{
        _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Simulates whole clusters, with faults, from seeds.
///
/// A seed gives the same run each time. Exits with 0 if all is well, with 1 if something was wrong, and with 2 if the
/// command line was.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(name = "remuda-sim", version)]
struct Args {
    /// Run this many seeds, one after the other
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "canary"])]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 1)]
    first: u64,
    /// Also run this many seeds drawn from the time, and print them
    #[arg(long, value_name = "K", default_value_t = 0)]
    fresh: u64,
    /// Run this one seed, and print what it draws
    #[arg(long, value_name = "S", conflicts_with = "canary")]
    seed: Option<u64>,
    /// Stop each run after this many steps, settled or not
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Which faults there may be: none, some (as the seed draws them), or all
    #[arg(long, default_value_t = FaultLevel::Some)]
    faults: FaultLevel,
    /// Print everything that happens in a run of one seed
    #[arg(long, requires = "seed")]
    log: bool,
    /// Also print how often each kind of act, fault and task was there
    #[arg(long)]
    coverage: bool,
    /// Run one large cluster, with faults, and print how long that took and how much memory
    #[arg(long, conflicts_with_all = ["seed", "seeds", "canary"])]
    scale: bool,
    /// How many engines the large cluster has
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "scale")]
    engines: u32,
    /// How many tasks the large cluster is sent
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "scale")]
    tasks: u64,
    /// Check that the checkers notice machines that are broken on purpose
    #[arg(long)]
    canary: bool,
}

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        Plan { seed, faults: self.faults, steps: self.steps, tampering: None }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let well = if args.canary {
        check_canary()
    } else if args.scale {
        large(&Scale { seed: args.first, engines: args.engines, tasks: args.tasks })
    } else if let Some(seed) = args.seed {
        one(&args, seed)
    } else {
        many(&args, args.seeds.unwrap_or(100))
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed and tells all about it.
fn one(args: &Args, seed: u64) -> bool {
    say!("parameters:\n{}", Parameters::draw(seed, args.faults));
    let outcome = if args.log {
        let (lines, outcome) = run_logged(args.plan(seed));
        lines.iter().for_each(|line| say!("{line}"));
        outcome
    } else {
        run_seed(args.plan(seed))
    };
    match outcome {
        Ok(report) => {
            let Report { steps, tasks, direct, faults, lost, time, ref endings, digest, .. } = report;
            say!(
                "seed {seed} passed: {steps} steps, {tasks} tasks, {direct} direct requests, {faults} faults, {lost} messages \
                 lost, {:.1} s of virtual time, digest {digest:016x}",
                time.as_secs_f64()
            );
            say!("tasks: {}", listed(endings));
            true
        }
        Err(failure) => {
            say!("{failure}");
            false
        }
    }
}

/// Runs one large cluster.
fn large(scale: &Scale) -> bool {
    let began = Instant::now();
    let outcome = scale.run();
    let took = began.elapsed();
    match outcome {
        Ok(report) => {
            say!(
                "{} engines, {} tasks, {} steps, {} faults, {} messages lost, {:.0} s of virtual time",
                scale.engines,
                report.tasks,
                report.steps,
                report.faults,
                report.lost,
                report.time.as_secs_f64()
            );
            say!("tasks: {}", listed(&report.endings));
            say!(
                "passed in {:.1} s of real time, most memory {}, digest {:016x}",
                took.as_secs_f64(),
                most_memory().unwrap_or_else(|| "unknown".to_owned()),
                report.digest
            );
            true
        }
        Err(violation) => {
            say!("failed after {:.1} s: [{}] {}", took.as_secs_f64(), violation.checker, violation.reason);
            violation.msg_ids.iter().take(20).for_each(|msg_id| say!("  `{msg_id}`"));
            let Scale { seed, engines, tasks } = scale;
            say!("run it again: remuda-sim --scale --first {seed} --engines {engines} --tasks {tasks}");
            false
        }
    }
}

/// The most memory that this process ever had, where the system tells.
fn most_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(format!("{} MiB", kib / 1024))
}

/// Adds up the runs of many seeds.
#[derive(Default)]
struct Sum {
    passed: u64,
    failed: Vec<u64>,
    report: Report,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Result<Report, Box<Failure>>) {
        let report = match outcome {
            Ok(report) => {
                self.passed += 1;
                report
            }
            Err(failure) => {
                say!("{failure}\n");
                self.failed.push(seed);
                failure.report
            }
        };
        let Report { steps, tasks, direct, faults, lost, time, endings, coverage, digest } = report;
        let sum = &mut self.report;
        (sum.steps, sum.tasks, sum.direct) = (sum.steps + steps, sum.tasks + tasks, sum.direct + direct);
        (sum.faults, sum.lost, sum.time) = (sum.faults + faults, sum.lost + lost, sum.time + time);
        for (ending, count) in endings {
            *sum.endings.entry(ending).or_default() += count;
        }
        sum.coverage.merge(&coverage);
        sum.digest = sum.digest.rotate_left(1) ^ digest;
    }
}

/// `aborted 3, ok 17`
fn listed(endings: &BTreeMap<String, u64>) -> String {
    let all: Vec<_> = endings.iter().map(|(ending, count)| format!("{ending} {count}")).collect();
    all.join(", ")
}

/// Runs many seeds.
fn many(args: &Args, seeds: u64) -> bool {
    let fresh: Vec<u64> = (0..args.fresh).map(fresh_seed).collect();
    if !fresh.is_empty() {
        let text: Vec<_> = fresh.iter().map(u64::to_string).collect();
        say!("fresh seeds: {}", text.join(" "));
    }
    let total = seeds + args.fresh;
    let shows = std::io::stderr().is_terminal();
    let (began, mut shown) = (Instant::now(), Instant::now());
    let mut sum = Sum::default();
    for (done, seed) in (1..).zip((args.first..args.first.saturating_add(seeds)).chain(fresh)) {
        sum.add(seed, run_seed(args.plan(seed)));
        if shows && shown.elapsed() > Duration::from_secs(1) {
            shown = Instant::now();
            eprintln!("{done} of {total} seeds, {} failed", sum.failed.len());
        }
    }
    let Sum { passed, failed, report } = sum;
    say!(
        "{total} seeds: {} steps, {} tasks, {} direct requests, {} faults, {} messages lost",
        report.steps,
        report.tasks,
        report.direct,
        report.faults,
        report.lost
    );
    say!(
        "{:.1} h of virtual time in {:.1} s, digest {:016x}",
        report.time.as_secs_f64() / 3600.0,
        began.elapsed().as_secs_f64(),
        report.digest
    );
    say!("tasks: {}", listed(&report.endings));
    if args.coverage {
        say!("how often what was done:\n{}", report.coverage);
    }
    for seed in &failed {
        say!("failed: {}", args.plan(*seed).command());
    }
    say!("{passed} passed, {} failed", failed.len());
    failed.is_empty()
}

/// A seed that nobody ran before, most likely.
fn fresh_seed(number: u64) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    // Short enough to be typed.
    remuda_sim::dice::Dice::new(nanos, &format!("fresh {number}")).below(1_000_000_000_000)
}

/// Runs the canary.
fn check_canary() -> bool {
    let mut missed = 0;
    for sighting in canary::sightings() {
        let canary::Sighting { tampering, caught } = sighting;
        if let Some(canary::Caught { seed, checker, reason }) = caught {
            say!("{tampering:?}: caught by [{checker}] with seed {seed}: {reason}");
        } else {
            missed += 1;
            say!("{tampering:?}: NOT CAUGHT within {} seeds by any of {:?}", canary::SEEDS, tampering.checkers());
        }
    }
    say!("{} caught, {missed} missed", remuda_sim::Tampering::ALL.len() - missed);
    missed == 0
}
