//! Slots, resources, priorities and restarts on scripts that nobody would write: what engines have is counted again outside, and the
//! scheduler's own invariants say that nothing that fits is left waiting.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use remuda_proto::message::native::{Announcement, Capability, Need, Runs};
use remuda_proto::message::needs::{Amount, Needs, Resources};
use remuda_proto::{Body, Identity, Key, Machine, MsgId, Now, Packer, Session, SessionId};
use remuda_scheduler::{Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde_json::{Value, json};

/// What tasks ask for.
const ASKS: [&str; 7] = ["", "cpus=2", "cpus=3", "cpus=0.5", "gpu=1", "cpus=2,gpu=1", "label=big"];

/// When services are started again.
const POLICIES: [&str; 3] = ["never", "on-failure", "always"];
/// How often.
const RESTARTS: u32 = 3;
/// How long after their end at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[derive(Clone, Debug)]
enum Op {
    Submit { asks: usize, priority: i32, retries: u32, anywhere: bool, target: Option<u8>, restart: Option<usize> },
    Answer { which: u8, ok: bool },
    Join { engine: u8, slots: u32, gpus: u32, big: bool },
    Leave { engine: u8 },
    Abort { task: u8 },
    Pass { seconds: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let target = prop_oneof![6 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let priority = prop_oneof![4 => Just(0), 1 => -2..3_i32];
    let restart = prop_oneof![2 => Just(None), 1 => (0..POLICIES.len()).prop_map(Some)];
    prop_oneof![
        10 => (0..ASKS.len(), priority, 0..2_u32, any::<bool>(), target, restart).prop_map(
            |(asks, priority, retries, anywhere, target, restart)| {
                Op::Submit { asks, priority, retries, anywhere, target, restart }
            },
        ),
        10 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(which, ok)| Op::Answer { which, ok }),
        3 => (0..4_u8, 1..5_u32, 0..3_u32, any::<bool>()).prop_map(|(engine, slots, gpus, big)| Op::Join { engine, slots, gpus, big }),
        1 => (0..4_u8).prop_map(|engine| Op::Leave { engine }),
        1 => any::<u8>().prop_map(|task| Op::Abort { task }),
        1 => (0..90_u8).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

struct World {
    scheduler: TaskScheduler,
    signer: Session,
    now: Now,
    hwm: u32,
    engines: BTreeMap<String, Capability>,
    asks: BTreeMap<String, Needs>,
    /// The tasks that engines have, and where.
    running: Vec<(String, String)>,
    answered: BTreeMap<String, u32>,
}

impl World {
    fn new(scheme: Scheme, hwm: u32) -> Self {
        let session = |id: &str| Session::new(SessionId::from(id), "u", Key::new("k"), Packer::Json, 1);
        Self {
            scheduler: TaskScheduler::new(TaskConfig { scheme, hwm, ..TaskConfig::default() }, session("scheduler")),
            signer: session("s"),
            now: Now::default(),
            hwm,
            engines: BTreeMap::new(),
            asks: BTreeMap::new(),
            running: Vec::new(),
            answered: BTreeMap::new(),
        }
    }

    fn body(&self, parts: [Value; 4]) -> Body {
        let parts = parts.map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&parts[0], &parts[1], &parts[2], &parts[3]], [])
    }

    fn handle(&mut self, event: TaskEvent) {
        let mut out = Vec::new();
        self.scheduler.handle(self.now, event, &mut out);
        self.take(&out);
    }

    fn take(&mut self, out: &[TaskEffect]) {
        for effect in out {
            match effect {
                TaskEffect::ToEngine { engine, body, .. } => {
                    let header: Value = serde_json::from_slice(body.header()).unwrap();
                    let id = header["msg_id"].as_str().unwrap().to_owned();
                    let need = Need::new(Runs::Process, &self.asks[&id]);
                    assert!(self.engines[&engine.to_string()].serves(&need), "{engine} cannot run {id}: {need}");
                    self.running.push((id, engine.to_string()));
                }
                TaskEffect::ToClient { body, .. } => {
                    let parent: Value = serde_json::from_slice(body.parent_header()).unwrap();
                    *self.answered.entry(parent["msg_id"].as_str().unwrap().to_owned()).or_default() += 1;
                }
                _ => {}
            }
        }
        self.check();
    }

    fn check(&self) {
        self.scheduler.check();
        assert!(self.answered.values().all(|times| *times == 1), "{:?}", self.answered);
        for (engine, has) in &self.engines {
            let on = self.running.iter().filter(|(_, on)| on == engine).map(|(id, _)| &self.asks[id]);
            let on: Vec<&Needs> = on.collect();
            let cpus: u64 = on.iter().map(|needs| u64::from(needs.cpus().milli())).sum();
            assert!(cpus <= u64::from(has.slots * self.hwm) * 1000, "{engine} has {cpus}");
            for (name, amount) in &has.resources {
                let taken: u64 =
                    on.iter().filter_map(|needs| needs.resources().get(name)).map(|a| u64::from(a.milli())).sum();
                assert!(taken <= u64::from(amount.milli() * self.hwm), "{engine} has {taken} of {name}");
            }
        }
    }

    fn answer(&mut self, at: usize, ok: bool) {
        let (id, engine) = self.running.remove(at);
        let status = if ok { "ok" } else { "error" };
        let header = json!({"msg_id": format!("r-{id}-{engine}"), "msg_type": "apply_reply"});
        let metadata = json!({"status": status, "dependencies_met": true, "once": self.answered.len()});
        let body = self.body([header, json!({"msg_id": id}), metadata, json!({"status": status})]);
        let engine = Identity::from(engine.as_bytes());
        self.handle(TaskEvent::Result { engine, client: Identity::from(&b"c"[..]), body });
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Submit { asks, priority, retries, anywhere, target, restart } => {
                let id = format!("t{}", self.asks.len());
                let needs: Needs = ASKS[*asks].parse().unwrap();
                self.asks.insert(id.clone(), needs.clone());
                let targets: Vec<String> = target.iter().map(|engine| format!("e{engine}")).collect();
                let metadata = json!({"retries": retries, "targets": targets, "remuda": {
                    "needs": serde_json::to_value(&needs).unwrap(), "priority": priority, "retry_anywhere": anywhere,
                    "restart": restart.map(|policy| json!({"policy": POLICIES[policy], "limit": RESTARTS,
                        "backoff_ms": 1000, "max_backoff_ms": LONGEST_PAUSE.as_millis(), "reset_after_ms": 30_000}))}});
                let content = json!({"remuda": {"process": {"argv": ["true"]}}});
                let body =
                    self.body([json!({"msg_id": id, "msg_type": "apply_request"}), json!({}), metadata, content]);
                self.handle(TaskEvent::Submit { client: Identity::from(&b"c"[..]), body });
            }
            Op::Answer { which, ok } if !self.running.is_empty() => {
                self.answer(usize::from(*which) % self.running.len(), *ok);
            }
            Op::Answer { .. } => {}
            Op::Join { engine, slots, gpus, big } => {
                let uuid = format!("e{engine}");
                if self.engines.contains_key(&uuid) {
                    return;
                }
                let capability = Capability::native(&Announcement {
                    process: true,
                    slots: *slots,
                    resources: Resources::from_iter(Amount::whole(*gpus).map(|gpus| ("gpu".into(), gpus))),
                    labels: big.then(|| "big".to_owned()).into_iter().collect(),
                    ..Announcement::default()
                });
                // What it had when it left it has no more.
                if self.running.iter().any(|(_, on)| *on == uuid) {
                    return;
                }
                self.engines.insert(uuid.clone(), capability.clone());
                self.handle(TaskEvent::Registered { uuid: (*uuid).into(), capability });
            }
            Op::Leave { engine } => {
                let uuid = format!("e{engine}");
                self.engines.remove(&uuid);
                self.handle(TaskEvent::Unregistered { uuid: (*uuid).into() });
                self.now.instant = self.now.instant + TaskConfig::GRACE;
                self.running.retain(|(_, on)| *on != uuid);
                self.pass();
            }
            Op::Abort { task } => {
                self.handle(TaskEvent::Abort { msg_ids: vec![MsgId::from(format!("t{task}"))], stop: false });
            }
            Op::Pass { seconds } => {
                self.now.instant = self.now.instant + Duration::from_secs((*seconds).into());
                self.pass();
            }
        }
    }

    fn pass(&mut self) {
        let mut out = Vec::new();
        self.scheduler.on_deadline(self.now, &mut out);
        self.take(&out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_given_twice_and_nothing_that_fits_waits(
        scheme in prop::sample::select(Scheme::ALL.into_iter().filter(|scheme| *scheme != Scheme::Pure).collect::<Vec<_>>()),
        hwm in 1..3_u32,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(scheme, hwm);
        ops.iter().for_each(|op| world.step(op));
        // Then all goes well, on an engine that can run everything: nothing waits for ever.
        world.step(&Op::Leave { engine: 0 });
        world.step(&Op::Join { engine: 0, slots: 4, gpus: 2, big: true });
        for engine in 1..4 {
            world.step(&Op::Join { engine, slots: 4, gpus: 2, big: true });
        }
        let mut left = (4 + RESTARTS as usize) * ops.len() + 10;
        while !world.running.is_empty() || world.scheduler.counts().waiting > 0 {
            if world.running.is_empty() {
                // Only services that are between two attempts wait.
                world.now.instant = world.now.instant + LONGEST_PAUSE;
                world.pass();
            } else {
                world.answer(0, true);
            }
            left -= 1;
            prop_assert!(left > 0, "it does not end");
        }
        // What is left has tried, or may only go to, engines that are not what it needs.
        let counts = world.scheduler.counts();
        prop_assert_eq!(counts.assigned, 0);
    }
}
