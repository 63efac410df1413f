//! A controller without engines.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::args::{IdleArgs, Kind};
use crate::child;
use crate::controller::{Candidate, Controller, line_up};
use crate::report::{Bar, Figure, Journal, RowReport, note, print};

/// How long it is watched.
const WATCH: Duration = Duration::from_secs(3);

/// What an idle controller holds.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    controller: &'static str,
    processes: usize,
    rss_bytes: u64,
    pss_bytes: u64,
    cpu_ms_per_s: f64,
}

/// `remuda-bench idle`
pub(crate) fn run(args: &IdleArgs) -> Result<ExitCode> {
    child::end_in_order()?;
    let mut journal = Journal::open("idle", args.of.json.as_deref())?;
    let mut text = format!(
        "{}\n\n{:<8}{:>10}{:>9}{:>9}{:>14}\n",
        journal.machine(),
        "idle",
        "processes",
        "RSS MB",
        "PSS MB",
        "CPU ms per s"
    );
    for candidate in line_up(&args.of, &[Kind::Remuda, Kind::Stock])? {
        let idle = measure(&candidate)?;
        journal.write(&idle)?;
        writeln!(
            text,
            "{:<8}{:>10}{:>9.1}{:>9.1}{:>14.1}",
            idle.controller,
            idle.processes,
            idle.rss_bytes as f64 / 1e6,
            idle.pss_bytes as f64 / 1e6,
            idle.cpu_ms_per_s
        )?;
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Watches one controller.
pub(crate) fn measure(candidate: &Candidate) -> Result<Idle> {
    note(&format!("{}, idle, watched for {} s", candidate.kind.name(), WATCH.as_secs()));
    let controller = Controller::start(candidate, 0, 1)?;
    let tree = controller.tree()?;
    // Its files are there before all of it is (stock writes them before it forks), so its CPU time counts from the second
    // half of the watch.
    std::thread::sleep(WATCH / 2);
    let before = tree.cpu()?;
    std::thread::sleep(WATCH / 2);
    let spent = tree.cpu()?.since(&before);
    let memory = tree.memory()?;
    Ok(Idle {
        controller: candidate.kind.name(),
        processes: tree.members()?.len(),
        rss_bytes: memory.rss,
        pss_bytes: memory.pss,
        cpu_ms_per_s: spent.as_secs_f64() * 1e3 / (WATCH / 2).as_secs_f64(),
    })
}

impl Idle {
    /// Its row of the table; the bars are for ours.
    pub(crate) fn report(&self) -> RowReport {
        let bar = |bar: Bar| if self.controller == Kind::Remuda.name() { bar } else { Bar::None };
        RowReport {
            heading: format!("idle, no engines, {}", self.controller),
            figures: vec![
                Figure::new("processes", self.processes as f64, bar(Bar::AtMost(1.0))),
                Figure::new("memory (RSS) in MB", self.rss_bytes as f64 / 1e6, bar(Bar::AtMost(20.0))),
                Figure::new("CPU ms a second", self.cpu_ms_per_s, Bar::None),
            ],
        }
    }
}
