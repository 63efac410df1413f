//! One request to many engines, and all their replies.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::controller::{Candidate, Controller};
use crate::parts::{Event, Latency, Load, Order, Outcome, Route};
use crate::report::{Bar, Figure, RowReport};
use crate::storm;

/// Size of the one buffer of a broadcast, in bytes.
pub(crate) const PAYLOAD_BYTES: usize = 1000;
/// How long all rounds may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Broadcasts {
    controller: &'static str,
    engines: u32,
    /// How often the request was sent, one after the other.
    rounds: u64,
    /// Replies that never came, came twice, failed, or were not expected.
    unsound: u64,
    /// From before a request is made until the last reply is read.
    all_replies_us: Latency,
}

/// Sends so many broadcasts to so many engines.
pub(crate) fn measure(candidate: &Candidate, engines: u32, rounds: u64) -> Result<Broadcasts> {
    let controller = Controller::start(candidate, engines, 1)?;
    let (_null_engines, mut client) = storm::ends(&controller, engines)?;
    client.tell(&Order::Prepare(Load { route: Route::Broadcast, tasks: rounds, warm_up: 0, window: 1 }))?;
    let Event::Warm = client.hear(PATIENCE).with_context(|| controller.last_words())? else {
        bail!("the client did not warm up")
    };
    client.tell(&Order::Go)?;
    let Event::Done(Outcome { faults, latency_us, .. }) = client.hear(PATIENCE)? else {
        bail!("the client did not finish")
    };
    ensure!(latency_us.is_some(), "broadcasts are measured one at a time");
    Ok(Broadcasts {
        controller: candidate.kind.name(),
        engines,
        rounds,
        unsound: faults.lost + faults.twice + faults.failed + faults.foreign,
        all_replies_us: latency_us.unwrap_or_default(),
    })
}

impl Broadcasts {
    /// Whether every reply came once.
    pub(crate) fn is_sound(&self) -> bool {
        self.unsound == 0
    }

    /// Its row of the table.
    pub(crate) fn report(&self) -> RowReport {
        let Self { controller, engines, rounds, unsound, all_replies_us } = self;
        RowReport {
            heading: format!("broadcast of {PAYLOAD_BYTES} bytes to {engines} engines, {rounds} times, {controller}"),
            figures: vec![
                Figure::new("all replies, p50 in ms", all_replies_us.p50 / 1e3, Bar::AtMost(100.0)),
                Figure::new("all replies, p99 in ms", all_replies_us.p99 / 1e3, Bar::None),
                Figure::new("replies lost, twice or failed", *unsound as f64, Bar::AtMost(0.0)),
            ],
        }
    }
}
