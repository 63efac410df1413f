//! What records in a database cost: the same load on a controller that keeps none, on one that writes them behind, and on
//! one that acts on nothing before it is on disk.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::controller::Candidate;
use crate::report::{Bar, Figure, Journal, RowReport, note};
use crate::statistics::{median, paired_ratio};
use crate::table::{Row, Run, Standing, Tasks, What};

/// How many engines there are, and how many tasks each may hold; a row for each pair.
const SHAPES: [(u32, u32); 2] = [(16, 64), (16, 1)];

/// How far records are to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// There are none.
    None,
    /// What came in the last moments may be lost.
    Async,
    /// Nothing is lost.
    Sync,
}

impl Level {
    const ALL: [Self; 3] = [Self::None, Self::Async, Self::Sync];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no store",
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::None => &["--db=none"],
            Self::Async => &["--db=sqlite", "--durability=async"],
            Self::Sync => &["--db=sqlite", "--durability=sync"],
        }
    }

    /// Which part of the throughput without a store it is to reach.
    fn bar(self) -> Bar {
        match self {
            Self::None => Bar::None,
            Self::Async => Bar::AtLeast(0.6),
            Self::Sync => Bar::AtLeast(0.35),
        }
    }
}

/// One run at one level.
#[derive(Debug, Serialize)]
struct Measured {
    durability: Level,
    /// Bytes on disk once it had come to rest, by all tasks of the run; 0 without a database.
    disk_bytes_per_task: f64,
    #[serde(flatten)]
    run: Run,
}

/// All rows, and whether nothing was lost, answered twice or failed.
pub(crate) fn measure(
    candidate: &Candidate,
    tasks: u64,
    rounds: u32,
    journal: &mut Journal,
) -> Result<(Vec<RowReport>, bool)> {
    let (mut rows, mut sound) = (Vec::new(), true);
    for (engines, hwm) in SHAPES {
        let row = Row::new(What::Balanced, engines, hwm);
        let mut runs = Vec::new();
        for round in 1..=rounds {
            // There and back again, so that none always comes first.
            let mut levels = Level::ALL;
            if round % 2 == 0 {
                levels.reverse();
            }
            for level in levels {
                note(&format!("round {round}/{rounds}, {engines} engines, hwm {hwm}: {}", level.name()));
                let measured = run(candidate, level, row, tasks, round).with_context(|| level.name())?;
                sound &= measured.run.outcome.faults.none();
                journal.write(&measured)?;
                runs.push(measured);
            }
        }
        rows.push(report(row, &runs));
    }
    Ok((rows, sound))
}

fn run(candidate: &Candidate, durability: Level, row: Row, tasks: u64, round: u32) -> Result<Measured> {
    let warm_up = tasks / 20;
    let candidate = candidate.with(durability.args());
    let mut standing = Standing::start(&candidate, row.engines, row.hwm)?;
    let run = standing.run(row, Tasks::all_alike(tasks, warm_up), round)?;
    let disk_bytes_per_task = standing.controller.database_bytes() as f64 / (tasks + warm_up) as f64;
    Ok(Measured { durability, disk_bytes_per_task, run })
}

/// What the runs of a row come to. Ratios are taken within each round.
fn report(row: Row, runs: &[Measured]) -> RowReport {
    let of = |level: Level, value: fn(&Measured) -> f64| -> Vec<Option<f64>> {
        runs.iter().filter(|run| run.durability == level).map(|run| Some(value(run))).collect()
    };
    let throughput = |run: &Measured| run.run.tasks_per_s;
    let mut figures = Vec::new();
    for level in Level::ALL {
        let mut figure = |what: &str, value: fn(&Measured) -> f64| {
            let middle = median(of(level, value).into_iter().flatten());
            figures.extend(middle.map(|value| Figure::new(&format!("{}, {what}", level.name()), value, Bar::None)));
        };
        figure("tasks/s", throughput);
        figure("CPU µs a task", |run| run.run.cpu_us_per_task.controller);
        if level != Level::None {
            figure("rest s", |run| run.run.settled_s);
            figure("bytes on disk a task", |run| run.disk_bytes_per_task);
        }
    }
    for level in [Level::Async, Level::Sync] {
        let ratio = paired_ratio(&of(level, throughput), &of(Level::None, throughput));
        let what = format!("{} / no store, tasks/s", level.name());
        figures.extend(ratio.map(|ratio| Figure::new(&what, ratio, level.bar())));
    }
    let Row { engines, hwm, window, .. } = row;
    RowReport { heading: format!("durability, {engines} engines, hwm {hwm}, window {window}, remuda"), figures }
}
