//! A client beside one that sends tasks and never reads a reply.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::args::{Kind, MuteArgs};
use crate::child::{self, Part};
use crate::controller::{Candidate, Controller, line_up};
use crate::parts::{Event, Load, MuteConfig, Order, Outcome, Route};
use crate::report::{Journal, note, print};
use crate::statistics::median;

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most tasks of the client that reads that are outstanding.
const WINDOW: u64 = 1024;
/// Most tasks that one engine has.
const HWM: u32 = 16;

/// One run.
#[derive(Debug, Serialize)]
struct Run {
    controller: &'static str,
    round: u32,
    /// Whether there was a client that never reads.
    beside: bool,
    unread: u64,
    #[serde(flatten)]
    outcome: Outcome,
    tasks_per_s: f64,
    /// Memory of the controller once all that the client that never reads sent at first is done.
    rss_before_bytes: u64,
    /// The same at the end.
    rss_after_bytes: u64,
    peak_rss_bytes: u64,
}

/// `remuda-bench mute`
pub(crate) fn run(args: &MuteArgs) -> Result<ExitCode> {
    child::end_in_order()?;
    let mut journal = Journal::open("mute", args.of.json.as_deref())?;
    let mut text = format!("{}\n\n", journal.machine());
    let mut sound = true;
    for candidate in line_up(&args.of, &[Kind::Remuda])? {
        if candidate.kind == Kind::Relay {
            bail!("the plain relay has no limits: leave it out");
        }
        let mut rates = [Vec::new(), Vec::new()];
        writeln!(
            text,
            "{:<8}{:>22}{:>10}{:>11}{:>10}{:>10}",
            "", "beside a mute client", "tasks/s", "MB before", "after", "at most"
        )?;
        for round in 1..=args.rounds {
            let order = if round % 2 == 1 { [false, true] } else { [true, false] };
            for beside in order {
                note(&format!(
                    "round {round}/{}: {} a client that never reads",
                    args.rounds,
                    if beside { "beside" } else { "without" }
                ));
                let run = once(args, &candidate, round, beside)?;
                sound &= run.outcome.faults.none();
                rates[usize::from(beside)].push(run.tasks_per_s);
                journal.write(&run)?;
                let mb = |bytes: u64| bytes as f64 / 1e6;
                writeln!(
                    text,
                    "{:<8}{:>22}{:>10.0}{:>11.1}{:>10.1}{:>10.1}",
                    run.controller,
                    if beside { "yes" } else { "no" },
                    run.tasks_per_s,
                    mb(run.rss_before_bytes),
                    mb(run.rss_after_bytes),
                    mb(run.peak_rss_bytes),
                )?;
            }
        }
        let [without, with] = rates.map(|rates| median(rates).unwrap_or(f64::NAN));
        writeln!(text, "{:<8}with / without, medians: {:.2}", candidate.kind.name(), with / without)?;
    }
    writeln!(text, "{}", if sound { "nothing lost" } else { "NOT SOUND: see above" })?;
    print(&text)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn once(args: &MuteArgs, candidate: &Candidate, round: u32, beside: bool) -> Result<Run> {
    let controller = Controller::start(candidate, args.engines, HWM)?;
    let null_engines = Part::start("null-engines", &controller.engines)?;
    null_engines.ready(PATIENCE)?;
    let mut client = Part::start("client", &controller.client)?;
    client.ready(PATIENCE).with_context(|| controller.last_words())?;
    let load = Load { route: Route::Balanced, tasks: args.tasks, warm_up: 0, window: WINDOW };
    let mute = if beside {
        let config = MuteConfig { client: controller.client.clone(), tasks: args.unread };
        let mute = Part::start("mute-client", &config)?;
        mute.ready(PATIENCE)?;
        Some(mute)
    } else {
        None
    };
    // Warming up waits for its turn behind all that the mute one sent.
    client.tell(&Order::Prepare(load))?;
    let Event::Warm = client.hear(PATIENCE)? else { bail!("the client did not warm up") };
    let tree = controller.tree()?;
    let rss_before_bytes = tree.memory()?.rss;
    client.tell(&Order::Go)?;
    let Event::Done(outcome) = client.hear(PATIENCE)? else { bail!("the client did not finish") };
    if !outcome.faults.none() {
        note(&format!("NOT SOUND: {:?}\n{}", outcome.faults, controller.last_words()));
    }
    let memory = tree.memory()?;
    drop(mute);
    Ok(Run {
        controller: candidate.kind.name(),
        round,
        beside,
        unread: args.unread,
        tasks_per_s: outcome.tasks.saturating_sub(outcome.faults.lost) as f64 / outcome.seconds,
        outcome,
        rss_before_bytes,
        rss_after_bytes: memory.rss,
        peak_rss_bytes: memory.peak_rss,
    })
}
