//! What a decision costs, in steps of the scheduler's own count: each step is one look at or change of an index, so that
//! its time grows with the logarithm of what the index holds. The number of steps must not grow with it at all.
//!
//! Each test fails when a walk over all engines, or over all tasks that are queued, comes into a decision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};

use remuda_proto::message::native::Capability;
use remuda_proto::{Body, EngineUuid, Identity, Key, Machine, MsgId, Now, Packer, Session, SessionId};
use remuda_scheduler::{Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde_json::{Value, json};

/// Most steps that any event of these tests may take, but for what it does to tasks and engines that it is about.
const FEW: u64 = 40;

struct World {
    scheduler: TaskScheduler,
    signer: Session,
    now: Now,
    out: Vec<TaskEffect>,
    tasks: usize,
    /// The task that was sent last to each engine.
    running: BTreeMap<String, usize>,
}

impl World {
    fn new(scheme: Scheme, hwm: u32, engines: usize) -> Self {
        // Unsigned: what is counted here has nothing to do with signatures.
        let session = || Session::new(SessionId::from("s"), "u", Key::new(""), Packer::Json, 1);
        let config = TaskConfig { scheme, hwm, ..TaskConfig::default() };
        let scheduler = TaskScheduler::new(config, session());
        let mut world = Self {
            scheduler,
            signer: session(),
            now: Now::default(),
            out: Vec::new(),
            tasks: 0,
            running: BTreeMap::new(),
        };
        for engine in 0..engines {
            world.join(&format!("e{engine}"));
        }
        world
    }

    /// Handles an event, and returns how many steps that took.
    fn handle(&mut self, event: TaskEvent) -> u64 {
        self.out.clear();
        let before = self.scheduler.work();
        self.scheduler.handle(self.now, event, &mut self.out);
        let steps = self.scheduler.work() - before;
        self.running.extend(self.out.iter().filter_map(to_engine));
        steps
    }

    fn join(&mut self, uuid: &str) -> u64 {
        self.handle(TaskEvent::Registered { uuid: EngineUuid::from(uuid), capability: Capability::stock() })
    }

    fn leave(&mut self, uuid: &str) -> u64 {
        self.handle(TaskEvent::Unregistered { uuid: EngineUuid::from(uuid) })
    }

    fn body(&self, header: &Value, parent: &Value, metadata: &Value) -> Body {
        let [header, parent, metadata] = [header, parent, metadata].map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&header, &parent, &metadata, b"{}"], [])
    }

    /// Submits the next task, whose id is its number.
    fn submit(&mut self, metadata: &Value) -> u64 {
        let header = json!({"msg_id": self.tasks.to_string(), "msg_type": "apply_request"});
        self.tasks += 1;
        let body = self.body(&header, &json!({}), metadata);
        self.handle(TaskEvent::Submit { client: Identity::from(&b"c"[..]), body })
    }

    fn answer(&mut self, engine: &str, id: usize, metadata: &Value) -> u64 {
        let body = self.body(&json!({}), &json!({"msg_id": id.to_string()}), metadata);
        let (engine, client) = (Identity::from(engine.as_bytes()), Identity::from(&b"c"[..]));
        self.handle(TaskEvent::Result { engine, client, body })
    }

    fn ok(&mut self, engine: &str, id: usize) -> u64 {
        self.answer(engine, id, &json!({"status": "ok"}))
    }

    /// The engine and the number of the task that was sent last.
    fn sent(&self) -> (String, usize) {
        let sent = self.out.iter().rev().find_map(to_engine);
        sent.unwrap_or_else(|| panic!("nothing was sent: {:?}", self.out))
    }
}

fn to_engine(effect: &TaskEffect) -> Option<(String, usize)> {
    let TaskEffect::ToEngine { engine, body, .. } = effect else { return None };
    let header: Value = serde_json::from_slice(body.header()).unwrap();
    Some((engine.to_string(), header["msg_id"].as_str().unwrap().parse().unwrap()))
}

/// Holds the steps of the same events in a small and in a large world against each other.
fn assert_flat(what: &str, small: u64, large: u64) {
    assert!(large <= FEW, "{what}: {large} steps");
    assert!(large <= small + 4, "{what}: {small} steps became {large}");
}

#[test]
fn a_decision_costs_the_same_among_10_engines_and_10_000() {
    for scheme in Scheme::ALL {
        for metadata in [json!({}), json!({"targets": ["e3", "e5"]})] {
            let [small, large] = [10, 10_000].map(|engines| {
                let mut world = World::new(scheme, 1, engines);
                let mut most = 0;
                for _ in 0..200 {
                    most = most.max(world.submit(&metadata));
                    let (engine, id) = world.sent();
                    most = most.max(world.ok(&engine, id));
                }
                most
            });
            assert_flat(&format!("{scheme} {metadata}"), small, large);
        }
    }
}

#[test]
fn an_engine_comes_and_goes_at_the_same_cost_among_10_and_10_000() {
    for scheme in Scheme::ALL {
        let [small, large] = [10, 10_000].map(|engines| {
            let mut world = World::new(scheme, 2, engines);
            for _ in 0..10 {
                world.submit(&json!({}));
            }
            (0..20)
                .map(|round| world.join(&format!("new{round}")).max(world.leave(&format!("e{round}"))))
                .max()
                .unwrap()
        });
        assert_flat(scheme.name(), small, large);
    }
}

#[test]
fn the_next_task_costs_the_same_among_10_and_100_000_in_the_queue() {
    for metadata in [
        json!({}),
        json!({"timeout": 1000}),
        json!({"targets": ["e0"]}),
        json!({"targets": ["e0", "e1"], "timeout": 1000}),
    ] {
        let [small, large] = [10, 100_000].map(|queued| {
            let mut world = World::new(Scheme::LeastLoad, 1, 2);
            for _ in 0..queued {
                world.submit(&metadata);
            }
            let mut most = world.submit(&metadata);
            for _ in 0..8 {
                for (engine, id) in world.running.clone() {
                    most = most.max(world.ok(&engine, id));
                }
            }
            assert!(world.scheduler.len() < queued, "{metadata}");
            most
        });
        assert_flat(&metadata.to_string(), small, large);
    }
}

#[test]
fn tasks_for_a_busy_engine_cost_the_others_nothing() {
    let [small, large] = [10, 100_000].map(|queued| {
        let mut world = World::new(Scheme::LeastLoad, 1, 2);
        for _ in 0..queued {
            world.submit(&json!({"targets": ["e0"]}));
        }
        // Engine 1 takes plain tasks, past all that wait for engine 0.
        let mut most = world.submit(&json!({}));
        for _ in 0..20 {
            let (engine, id) = world.sent();
            assert_eq!(engine, "e1");
            most = most.max(world.ok("e1", id)).max(world.submit(&json!({})));
        }
        most
    });
    assert_flat("past the queue of another", small, large);
}

#[test]
fn a_task_that_an_engine_tried_is_passed_over_once() {
    let [small, large] = [10, 10_000].map(|tried| {
        let mut world = World::new(Scheme::LeastLoad, 1, 1);
        let unmet = json!({"status": "error", "dependencies_met": false});
        let mut all = 0;
        for id in 0..tried {
            all += world.submit(&json!({})) + world.answer("e0", id, &unmet);
        }
        assert_eq!(world.scheduler.counts().ready, tried);
        let mut most = all / tried as u64;
        for _ in 0..20 {
            most = most.max(world.submit(&json!({})));
            let (_, id) = world.sent();
            most = most.max(world.ok("e0", id));
        }
        most
    });
    assert_flat("past tasks to try elsewhere", small, large);
    // Coming back to a long list, an engine goes through it once.
    let mut world = World::new(Scheme::LeastLoad, 0, 1);
    for _ in 0..1000 {
        world.submit(&json!({}));
    }
    for id in 0..1000 {
        world.answer("e0", id, &json!({"status": "error", "dependencies_met": false}));
    }
    world.leave("e0");
    world.join("e0");
    let (first, second) = (world.submit(&json!({})), world.ok("e0", 1000));
    assert!(first.max(second) <= FEW, "{first} and {second} steps");
}

#[test]
fn the_end_of_a_task_costs_only_those_that_wait_for_it() {
    let [small, large] = [10, 100_000].map(|waiting| {
        let mut world = World::new(Scheme::LeastLoad, 1, 2);
        world.submit(&json!({}));
        let (busy, long) = world.sent();
        for at in 0..waiting {
            let key = if at % 2 == 0 { "after" } else { "follow" };
            world.submit(&json!({key: [long.to_string()]}));
        }
        // On the other engine, tasks come and go, some of them in pairs.
        let mut most = 0;
        for _ in 0..20 {
            most = most.max(world.submit(&json!({})));
            let (engine, id) = world.sent();
            assert_ne!(engine, busy);
            most = most.max(world.submit(&json!({"after": [id.to_string()]}))).max(world.ok(&engine, id));
            let (engine, id) = world.sent();
            most = most.max(world.ok(&engine, id));
        }
        most
    });
    assert_flat("an end", small, large);
}

#[test]
fn a_task_leaves_the_middle_of_a_long_queue_at_the_same_cost() {
    let [small, large] = [10, 100_000].map(|queued| {
        let mut world = World::new(Scheme::LeastLoad, 1, 1);
        for at in 0..queued {
            let timeout = if at == queued / 2 { 1.0 } else { 1000.0 };
            world.submit(&json!({"timeout": timeout, "targets": if at % 2 == 0 { vec!["e0"] } else { vec![] }}));
        }
        let middle = MsgId::from((queued / 3).to_string());
        let abort = world.handle(TaskEvent::Abort { msg_ids: vec![middle], stop: false });
        let before = world.scheduler.work();
        world.now.instant.0 += 1_000_000_000;
        world.scheduler.on_deadline(world.now, &mut world.out);
        assert_eq!(world.scheduler.len(), queued - 2);
        abort.max(world.scheduler.work() - before)
    });
    assert_flat("abort and timeout", small, large);
}

#[test]
fn the_end_of_a_task_that_100_000_wait_for_costs_the_same_for_each_of_them() {
    let [small, large] = [10, 100_000].map(|waiting| {
        let mut world = World::new(Scheme::LeastLoad, 1, 2);
        world.submit(&json!({}));
        let (engine, first) = world.sent();
        let wait = json!({"after": [first.to_string()]});
        let mut most = (0..waiting).map(|_| world.submit(&wait)).max().unwrap();
        assert_eq!(world.scheduler.counts().waiting, waiting);
        most = most.max(world.ok(&engine, first).div_ceil(waiting as u64));
        for _ in 0..4 {
            for (engine, id) in world.running.clone() {
                most = most.max(world.ok(&engine, id));
            }
        }
        assert_eq!(world.scheduler.len(), waiting - 8);
        most
    });
    assert_flat("one for many", small, large);
}

#[test]
fn a_chain_of_100_000_goes_link_by_link_and_breaks_at_once() {
    const LINKS: usize = 100_000;
    let chain = || {
        let mut world = World::new(Scheme::LeastLoad, 1, 2);
        let mut most = world.submit(&json!({}));
        let (engine, _) = world.sent();
        for link in 1..LINKS {
            most = most.max(world.submit(&json!({"after": [(link - 1).to_string()]})));
        }
        (world, engine, most)
    };
    let (mut world, mut engine, mut most) = chain();
    for link in 0..LINKS {
        most = most.max(world.ok(&engine, link));
        if link + 1 < LINKS {
            let (next, id) = world.sent();
            assert_eq!(id, link + 1);
            engine = next;
        }
    }
    assert!(world.scheduler.is_idle());
    assert!(most <= FEW, "{most} steps");

    // When the first link fails none of the others can run: they all end in that event.
    let (mut world, engine, _) = chain();
    let steps = world.answer(&engine, 0, &json!({"status": "error"}));
    let told = world.out.iter().filter(|effect| matches!(effect, TaskEffect::ToClient { .. })).count();
    assert_eq!((told, world.scheduler.len()), (LINKS, 0));
    assert!(steps <= FEW * LINKS as u64, "{steps} steps");
}

#[test]
fn a_task_of_1_000_layers_costs_what_one_of_10_layers_costs() {
    const WIDTH: usize = 100;
    let [small, large] = [10, 1_000].map(|layers| {
        let mut world = World::new(Scheme::LeastLoad, 1, WIDTH);
        let mut sent = VecDeque::new();
        let mut most = 0;
        for task in 0..layers * WIDTH {
            let (layer, at) = (task / WIDTH, task % WIDTH);
            // Three of the layer before.
            let after = [0, 1, 7].map(|by| (layer * WIDTH).checked_sub(WIDTH).map(|first| first + (at + by) % WIDTH));
            let after: Vec<String> = after.into_iter().flatten().map(|id| id.to_string()).collect();
            most = most.max(world.submit(&json!({"after": after})));
            sent.extend(world.out.iter().filter_map(to_engine));
        }
        while let Some((engine, id)) = sent.pop_front() {
            most = most.max(world.ok(&engine, id));
            sent.extend(world.out.iter().filter_map(to_engine));
        }
        assert!(world.scheduler.is_idle(), "{:?}", world.scheduler.counts());
        most
    });
    // Each has three before it and three after it.
    assert!(large <= 3 * FEW && large <= small + 4, "{small} steps became {large}");
}
