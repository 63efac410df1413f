//! Many engines that register at once.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::args::{EnginesArgs, Kind};
use crate::child::{self, Part};
use crate::controller::{Candidate, Controller, line_up};
use crate::parts::{ClientConfig, EnginesConfig, Event, Load, Order, Outcome, Route};
use crate::report::{Bar, Figure, Journal, RowReport, note, print};

/// Engines in one process: each takes some twelve of the files that a process may have open.
const PER_PROCESS: u32 = 500;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What became of a storm.
#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    controller: &'static str,
    engines: u32,
    /// From the start of the engines' process until each has its registration granted, with its sockets connected.
    granted_s: f64,
    /// Until a client's list of engines has all of them.
    known_s: f64,
    /// Tasks sent to each engine by name that were not answered: engines that are listed and not there.
    unanswered: u64,
    rss_bytes: u64,
    /// Tasks a second of a client with 16 other engines: before the storm, and during it.
    beside: Option<[f64; 2]>,
    /// What of its tasks was lost, answered twice, or failed.
    beside_faults: u64,
}

/// `remuda-bench engines`
pub(crate) fn run(args: &EnginesArgs) -> Result<ExitCode> {
    child::end_in_order()?;
    child::allow_many_files();
    let mut journal = Journal::open("engines", args.of.json.as_deref())?;
    let mut text = format!(
        "{}\n\n{:<8}{:>9}{:>12}{:>11}{:>8}{:>9}\n",
        journal.machine(),
        "storm",
        "engines",
        "granted s",
        "known s",
        "silent",
        "RSS MB"
    );
    let mut sound = true;
    for &engines in &args.engines {
        for candidate in line_up(&args.of, &[Kind::Remuda])? {
            if candidate.kind == Kind::Relay {
                bail!("the plain relay registers nobody: leave it out");
            }
            let storm = measure(&candidate, engines, args.beside).with_context(|| format!("{engines} engines"))?;
            sound &= storm.is_sound();
            journal.write(&storm)?;
            writeln!(
                text,
                "{:<8}{:>9}{:>12.2}{:>11.2}{:>8}{:>9.1}",
                storm.controller,
                storm.engines,
                storm.granted_s,
                storm.known_s,
                storm.unanswered,
                storm.rss_bytes as f64 / 1e6
            )?;
            if let Some([before, during]) = storm.beside {
                writeln!(
                    text,
                    "  beside it, {} tasks twice: {before:.0} tasks/s before, {during:.0} during; lost, twice or failed: {}",
                    args.beside, storm.beside_faults
                )?;
            }
        }
    }
    print(&text)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Engines of the client beside a storm.
const BESIDE: u32 = 16;

/// A client that works while the storm goes on.
struct Beside {
    _engines: Part,
    client: Part,
    /// What the same load was, before.
    before: Outcome,
}

impl Beside {
    /// Measures `tasks` tasks, and begins as many again. The engines have numbers after those of the storm.
    fn begin(controller: &Controller, after: u32, tasks: u64) -> Result<Self> {
        let config = EnginesConfig { first: after, count: BESIDE, ..controller.engines.clone() };
        let engines = Part::start("null-engines", &config)?;
        engines.ready(PATIENCE)?;
        let mut client = Part::start("client", &ClientConfig { engines: BESIDE, ..controller.client.clone() })?;
        client.ready(PATIENCE)?;
        let load = Load { route: Route::Balanced, tasks, warm_up: 0, window: 256 };
        client.tell(&Order::Prepare(load))?;
        let Event::Warm = client.hear(PATIENCE)? else { bail!("the client did not warm up") };
        client.tell(&Order::Go)?;
        let Event::Done(before) = client.hear(PATIENCE)? else { bail!("the client did not finish") };
        client.tell(&Order::Prepare(load))?;
        let Event::Warm = client.hear(PATIENCE)? else { bail!("the client did not warm up") };
        client.tell(&Order::Go)?;
        Ok(Self { _engines: engines, client, before })
    }

    /// Waits for the rest. Tasks a second before and now, and faults. Its engines stay: they are listed, and answer.
    fn finish(&mut self) -> Result<([f64; 2], u64)> {
        let Event::Done(during) = self.client.hear(PATIENCE)? else { bail!("the client did not finish") };
        let faults = during.faults.and(self.before.faults);
        let rate = |outcome: &Outcome| outcome.tasks as f64 / outcome.seconds;
        Ok(([rate(&self.before), rate(&during)], faults.lost + faults.twice + faults.failed + faults.foreign))
    }
}

/// Starts the null engines of a controller, in as many processes as they need. They are ready one by one.
fn null_engines(controller: &Controller, engines: u32) -> Result<Vec<Part>> {
    let processes = (0..engines).step_by(PER_PROCESS as usize).map(|first| {
        let count = PER_PROCESS.min(engines - first);
        Part::start("null-engines", &EnginesConfig { first, count, ..controller.engines.clone() })
    });
    processes.collect()
}

/// Starts both ends of a controller, and waits until the client knows all engines.
pub(crate) fn ends(controller: &Controller, engines: u32) -> Result<(Vec<Part>, Part)> {
    let null_engines = null_engines(controller, engines)?;
    for part in &null_engines {
        part.ready(PATIENCE).with_context(|| controller.last_words())?;
    }
    let client = Part::start("client", &controller.client)?;
    client.ready(PATIENCE).with_context(|| controller.last_words())?;
    Ok((null_engines, client))
}

/// Starts so many engines at once; beside a client that does twice `beside` tasks, if that is not 0.
pub(crate) fn measure(candidate: &Candidate, engines: u32, beside: u64) -> Result<Storm> {
    note(&format!("{}, {engines} engines at once", candidate.kind.name()));
    let controller = Controller::start(candidate, engines, 1)?;
    let mut others = (beside > 0).then(|| Beside::begin(&controller, engines, beside)).transpose()?;
    let began = Instant::now();
    let null_engines = null_engines(&controller, engines)?;
    for part in &null_engines {
        part.ready(PATIENCE).with_context(|| controller.last_words())?;
    }
    let granted_s = began.elapsed().as_secs_f64();
    let known = engines + if others.is_some() { BESIDE } else { 0 };
    let mut client = Part::start("client", &ClientConfig { engines: known, ..controller.client.clone() })?;
    client.ready(PATIENCE).with_context(|| controller.last_words())?;
    let known_s = began.elapsed().as_secs_f64();
    let beside = others.as_mut().map(Beside::finish).transpose()?;
    // The warm-up alone sends each engine two tasks.
    client.tell(&Order::Prepare(Load { route: Route::Direct, tasks: u64::from(engines), warm_up: 0, window: 256 }))?;
    let Event::Warm = client.hear(PATIENCE)? else { bail!("the client did not warm up") };
    client.tell(&Order::Go)?;
    let Event::Done(Outcome { faults, .. }) = client.hear(PATIENCE)? else { bail!("the client did not finish") };
    let rss_bytes = controller.tree()?.memory()?.rss;
    Ok(Storm {
        controller: candidate.kind.name(),
        engines,
        granted_s,
        known_s,
        unanswered: faults.lost + faults.failed,
        rss_bytes,
        beside: beside.map(|(rates, _)| rates),
        beside_faults: beside.map_or(0, |(_, faults)| faults),
    })
}

impl Storm {
    /// Whether every engine that is listed answers, and nothing happened to the tasks of others.
    pub(crate) fn is_sound(&self) -> bool {
        self.unanswered == 0 && self.beside_faults == 0
    }

    /// Its row of the table.
    pub(crate) fn report(&self) -> RowReport {
        let Self { controller, engines, granted_s, known_s, unanswered, rss_bytes, .. } = self;
        RowReport {
            heading: format!("{engines} engines register at once, {controller}"),
            figures: vec![
                Figure::new("all registered, in s", *known_s, Bar::AtMost(5.0)),
                Figure::new("all granted, in s", *granted_s, Bar::None),
                Figure::new("listed and silent", *unanswered as f64, Bar::AtMost(0.0)),
                Figure::new("memory (RSS) in MB", *rss_bytes as f64 / 1e6, Bar::None),
            ],
        }
    }
}
