//! What a decision of the task scheduler costs by itself: the machine alone, without sockets, signatures and threads.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use remuda_proto::message::native::Capability;
use remuda_proto::{Body, EngineUuid, Identity, Key, Machine, Now, Packer, Session};
use remuda_scheduler::{Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde::Serialize;

use crate::report::{Bar, Figure, RowReport, note};

/// Flat, in time: between the least and the greatest size an index grows by as many levels as its logarithm says, and falls out
/// of the caches. Whoever walks over all engines or tasks takes a thousand times as long.
const FLAT: f64 = 4.0;
/// Decisions are timed in so many batches, of which the fastest counts: whatever else the machine does only adds.
const BATCHES: usize = 10;
/// Engines while the queue grows.
const ENGINES: usize = 64;

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Varied {
    /// How many engines there are; no queue.
    Engines,
    /// How many tasks are queued.
    Queued,
}

/// The cost of decisions with one scheme, at each size.
#[derive(Debug, Serialize)]
pub(crate) struct Decisions {
    scheme: &'static str,
    varied: Varied,
    /// Each size, and the time of one decision in nanoseconds: a task submitted (without a queue) or the next one sent (with
    /// one) and the end of one.
    ns_per_decision: Vec<(usize, f64)>,
}

/// Times so many decisions at each of these sizes.
pub(crate) fn measure(scheme: Scheme, varied: Varied, sizes: &[usize], decisions: usize) -> Decisions {
    let ns_per_decision = sizes.iter().map(|&size| {
        let mut world = match varied {
            Varied::Engines => World::half_busy(scheme, size),
            Varied::Queued => World::with_queue(scheme, size),
        };
        let batch = decisions.div_ceil(BATCHES);
        let batches = (0..BATCHES).map(|_| (0..batch).map(|_| world.decide(varied)).sum::<Duration>());
        (size, batches.min().unwrap_or_default().as_nanos() as f64 / batch as f64)
    });
    Decisions { scheme: scheme.name(), varied, ns_per_decision: ns_per_decision.collect() }
}

/// Every scheme that bears on what is varied, at these sizes.
pub(crate) fn measure_all(quick: bool) -> Vec<Decisions> {
    let decisions = if quick { 2_000 } else { 50_000 };
    let engines: &[usize] = if quick { &[10, 1000] } else { &[10, 100, 1000, 10_000] };
    let queued: &[usize] = if quick { &[10, 10_000] } else { &[10, 1000, 100_000, 1_000_000] };
    let mut all = Vec::new();
    for scheme in Scheme::ALL {
        note(&format!("decisions, {scheme}"));
        all.push(measure(scheme, Varied::Engines, engines, decisions));
        // With `pure` nothing is ever queued.
        if scheme != Scheme::Pure {
            all.push(measure(scheme, Varied::Queued, queued, decisions));
        }
    }
    all
}

impl Decisions {
    /// Its row of the table.
    pub(crate) fn report(&self) -> RowReport {
        let Self { scheme, varied, ns_per_decision } = self;
        let what = match varied {
            Varied::Engines => "engines",
            Varied::Queued => "tasks queued",
        };
        let mut figures: Vec<Figure> = ns_per_decision
            .iter()
            .map(|(size, ns)| Figure::new(&format!("ns a decision, {size} {what}"), *ns, Bar::None))
            .collect();
        if let (Some((_, small)), Some((_, large))) = (ns_per_decision.first(), ns_per_decision.last()) {
            figures.push(Figure::new("largest / smallest size", large / small, Bar::AtMost(FLAT)));
        }
        RowReport { heading: format!("decision alone, {scheme}, by {what}"), figures }
    }
}

/// The scheduler, and hands to play clients and engines with.
struct World {
    scheduler: TaskScheduler,
    signer: Session,
    out: Vec<TaskEffect>,
    /// Number of the next task.
    next: usize,
    /// The tasks that engines have, in the order in which they were sent.
    running: VecDeque<(Identity, Vec<u8>)>,
}

impl World {
    fn new(scheme: Scheme, engines: usize) -> Self {
        // Without a key: what is timed has nothing to do with signatures.
        let session = || Session::new("bench".into(), "bench", Key::new(""), Packer::Json, 1);
        let scheduler = TaskScheduler::new(TaskConfig { scheme, hwm: 1, ..TaskConfig::default() }, session());
        let (out, running) = (Vec::new(), VecDeque::new());
        let mut world = Self { scheduler, signer: session(), out, next: 0, running };
        for engine in 0..engines {
            let uuid = EngineUuid::from(format!("engine-{engine}"));
            world.handle(TaskEvent::Registered { uuid, capability: Capability::stock() });
        }
        world
    }

    /// Half of the engines are busy.
    fn half_busy(scheme: Scheme, engines: usize) -> Self {
        let mut world = Self::new(scheme, engines);
        for _ in 0..engines / 2 {
            world.submit();
        }
        world
    }

    /// All engines are busy, and so many tasks wait.
    fn with_queue(scheme: Scheme, queued: usize) -> Self {
        let mut world = Self::new(scheme, ENGINES);
        for _ in 0..ENGINES + queued {
            world.submit();
        }
        world
    }

    /// The time of one decision: a task comes and one ends; or one ends, so that the next is sent, and another comes.
    fn decide(&mut self, varied: Varied) -> Duration {
        match varied {
            Varied::Engines => self.submit() + self.end(),
            Varied::Queued => self.end() + self.submit(),
        }
    }

    /// The time that the scheduler takes for one event.
    fn handle(&mut self, event: TaskEvent) -> Duration {
        let start = Instant::now();
        self.scheduler.handle(Now::default(), black_box(event), &mut self.out);
        let time = start.elapsed();
        for effect in self.out.drain(..) {
            if let TaskEffect::ToEngine { engine, body, .. } = effect {
                self.running.push_back((engine, body.header().to_vec()));
            }
        }
        time
    }

    fn request(&mut self) -> Body {
        let header = format!(r#"{{"msg_id":"bench_1_{}","msg_type":"apply_request","session":"bench"}}"#, self.next);
        self.next += 1;
        self.signer.sign_parts([header.as_bytes(), b"{}", b"{}", b"{}"], [])
    }

    fn submit(&mut self) -> Duration {
        let body = self.request();
        self.handle(TaskEvent::Submit { client: Identity::from(&b"c"[..]), body })
    }

    /// The task that an engine has longest ends.
    fn end(&mut self) -> Duration {
        let Some((engine, parent)) = self.running.pop_front() else { return Duration::ZERO };
        let parts = [&b"{}"[..], &parent, br#"{"status":"ok"}"#, b"{}"];
        let body = self.signer.sign_parts(parts, []);
        self.handle(TaskEvent::Result { engine, client: Identity::from(&b"c"[..]), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_is_made_and_the_queue_keeps_its_length() {
        for scheme in Scheme::ALL {
            let mut world = World::half_busy(scheme, 4);
            for _ in 0..10 {
                assert!(world.decide(Varied::Engines) > Duration::ZERO, "{scheme}");
            }
            assert_eq!((world.running.len(), world.scheduler.len()), (2, 2), "{scheme}");
        }
        let mut world = World::with_queue(Scheme::LeastLoad, 5);
        world.decide(Varied::Queued);
        assert_eq!((world.scheduler.counts().ready, world.running.len()), (5, ENGINES));
        let report = measure(Scheme::Lru, Varied::Queued, &[1, 2], 3).report();
        assert_eq!(report.figures.len(), 3);
    }
}
