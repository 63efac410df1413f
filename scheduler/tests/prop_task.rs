//! The task scheduler against a model of it that is as plain as can be, on scripts that nobody would write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{Dependency, Did, Model, Outcome, Submission};
use proptest::prelude::*;
use remuda_proto::message::native::Capability;
use remuda_proto::message::story::{EngineLoad, Known, MAX_ATTEMPTS, TaskState, Why};
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, EngineUuid, Identity, Key, Machine, MsgId, Now, Packer, Refusal, Session, SessionId, Status};
use remuda_scheduler::{Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde_json::{Value, json};

const GRACE: Duration = Duration::from_secs(5);
const NEEDS: [&str; 3] = ["python", "process", "mul"];

/// One thing that happens. Numbers stand for tasks and engines; they are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Submit {
        after: Ids,
        follow: Ids,
        targets: Vec<u8>,
        retries: u32,
        timeout_s: Option<u8>,
        need: usize,
        priority: i32,
        /// The hub repeats it: nobody is sent its reply, and the hub is told.
        by_hub: bool,
    },
    /// An engine answers one of the tasks that it has.
    Answer {
        which: u8,
        outcome: Outcome,
    },
    /// An engine answers a task that it may not have.
    Stray {
        engine: u8,
        task: u8,
        outcome: Outcome,
    },
    Join {
        engine: u8,
        serves: [bool; 3],
    },
    Leave {
        engine: u8,
    },
    Pass {
        seconds: u8,
    },
    Abort {
        tasks: Vec<u8>,
    },
    Drain {
        engine: u8,
        drain: bool,
    },
    /// Another task under an id that was used before.
    SameId {
        task: u8,
        by_hub: bool,
    },
}

/// A dependency on tasks counted backwards: 0 is the task itself, and what lies before the first is unknown.
#[derive(Clone, Debug)]
struct Ids {
    back: Vec<u8>,
    all: bool,
    success: bool,
    failure: bool,
}

fn ids() -> impl Strategy<Value = Ids> {
    let back = prop_oneof![
        5 => Just(Vec::new()),
        4 => prop::collection::vec(1..6_u8, 1..4),
        1 => prop::collection::vec(0..40_u8, 1..3),
    ];
    let kind = prop_oneof![4 => Just((true, false)), 1 => Just((false, true)), 1 => Just((true, true))];
    (back, prop::bool::weighted(0.7), kind).prop_map(|(back, all, (success, failure))| Ids {
        back,
        all,
        success,
        failure,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![4 => Just(Outcome::Ok), 2 => Just(Outcome::Error), 1 => Just(Outcome::Aborted), 2 => Just(Outcome::Unmet)]
}

fn op() -> impl Strategy<Value = Op> {
    let targets = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..6_u8, 1..4)];
    let timeout = prop_oneof![3 => Just(None), 1 => (0..8_u8).prop_map(Some)];
    let priority = prop_oneof![4 => Just(0), 1 => -2..3_i32];
    let need = prop_oneof![6 => Just(0), 1 => Just(1_usize), 1 => Just(2_usize)];
    let serves = prop_oneof![3 => Just([true, false, false]), 1 => Just([true; 3]), 1 => any::<[bool; 3]>()];
    prop_oneof![
        12 => (ids(), ids(), targets, 0..3_u32, timeout, need, priority, prop::bool::weighted(0.15)).prop_map(
            |(after, follow, targets, retries, timeout_s, need, priority, by_hub)| {
                Op::Submit { after, follow, targets, retries, timeout_s, need, priority, by_hub }
            },
        ),
        12 => (any::<u8>(), outcome()).prop_map(|(which, outcome)| Op::Answer { which, outcome }),
        1 => (0..6_u8, any::<u8>(), outcome()).prop_map(|(engine, task, outcome)| Op::Stray { engine, task, outcome }),
        4 => (0..6_u8, serves).prop_map(|(engine, serves)| Op::Join { engine, serves }),
        2 => (0..6_u8).prop_map(|engine| Op::Leave { engine }),
        2 => (0..6_u8, prop::bool::weighted(0.6)).prop_map(|(engine, drain)| Op::Drain { engine, drain }),
        2 => prop_oneof![9 => 0..4_u8, 1 => 10..70_u8].prop_map(|seconds| Op::Pass { seconds }),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(|tasks| Op::Abort { tasks }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(task, by_hub)| Op::SameId { task, by_hub }),
    ]
}

/// The scheduler and the model, side by side.
struct Both {
    scheduler: TaskScheduler,
    model: Model,
    signer: Session,
    now: Now,
    /// How many tasks were submitted.
    tasks: usize,
    /// The tasks that were answered, to see that none is twice.
    answered: BTreeSet<String>,
    /// The tasks that the hub repeated.
    of_hub: BTreeSet<String>,
}

fn identity(text: &str) -> Identity {
    Identity::from(text.as_bytes())
}

fn capability(serves: [bool; 3]) -> Capability {
    let functions = if serves[2] { [Arc::from("mul")].into_iter().collect() } else { BTreeSet::new() };
    Capability { python: serves[0], process: serves[1], functions, ..Capability::stock() }
}

impl Both {
    fn new(scheme: Scheme, hwm: u32, seed: u64) -> Self {
        let session = |id: &str| Session::new(SessionId::from(id), "u", Key::new("k"), Packer::Json, 1);
        let config = TaskConfig { scheme, hwm, grace: GRACE, seed, ..TaskConfig::default() };
        Self {
            scheduler: TaskScheduler::new(config, session("scheduler")),
            model: Model::new(scheme, hwm, GRACE),
            signer: session("signer"),
            now: Now::default(),
            tasks: 0,
            answered: BTreeSet::new(),
            of_hub: BTreeSet::new(),
        }
    }

    fn body(&self, header: &Value, parent: &Value, metadata: &Value, content: &Value) -> Body {
        let [header, parent, metadata, content] =
            [header, parent, metadata, content].map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&header, &parent, &metadata, &content], [])
    }

    fn handle(&mut self, event: TaskEvent) -> Vec<TaskEffect> {
        let mut out = Vec::new();
        self.scheduler.handle(self.now, event, &mut out);
        out
    }

    /// What a list of effects comes to. The hub has to be told the same, in the same order.
    fn did(&mut self, out: &[TaskEffect]) -> Did {
        let mut did = Did::default();
        let (mut sent, mut said) = (Vec::new(), Vec::new());
        for effect in out {
            match effect {
                TaskEffect::ToEngine { engine, client, body } => {
                    let header: Value = serde_json::from_slice(body.header()).unwrap();
                    let id = header["msg_id"].as_str().unwrap().to_owned();
                    assert_eq!(*client == identity("client"), !self.of_hub.contains(&id), "{client} for {id}");
                    did.sent.push((id, engine.to_string()));
                }
                TaskEffect::ToClient { client, body, .. } => {
                    assert_eq!(*client, identity("client"));
                    let (id, status, word) = self.read_reply(body);
                    assert!(!self.of_hub.contains(&id), "{id} has no client");
                    assert!(self.answered.insert(id.clone()), "{id} was answered twice");
                    said.push((id.clone(), status));
                    did.answered.insert((id, word));
                }
                TaskEffect::Monitor(Monitor::Reply { msg_id, body, .. }) if self.of_hub.contains(msg_id.as_str()) => {
                    let (id, _, word) = self.read_reply(body);
                    assert_eq!(id, msg_id.as_str(), "the hub is told of another reply");
                    assert!(self.answered.insert(id.clone()), "{id} was answered twice");
                    did.answered.insert((id, word));
                }
                TaskEffect::Monitor(Monitor::Drained { engine, request: 5 }) => {
                    did.drained.insert(engine.to_string());
                }
                TaskEffect::Monitor(Monitor::Destination { msg_id, engine, .. }) => {
                    sent.push((msg_id.to_string(), engine.to_string()));
                }
                TaskEffect::Monitor(Monitor::Reply { msg_id, status, .. }) => {
                    let status = match status {
                        Status::Ok => "ok",
                        Status::Error => "error",
                        Status::Aborted => "aborted",
                    };
                    let last = said.last().unwrap();
                    assert_eq!((&*last.0, &*last.1), (msg_id.as_str(), status), "the hub is told otherwise");
                }
                TaskEffect::Monitor(_) | TaskEffect::Refused { .. } => {}
                TaskEffect::PauseIntake(_) | TaskEffect::ResumeIntake => panic!("no limit is near"),
            }
        }
        assert_eq!(sent, did.sent, "the hub is told otherwise");
        did
    }

    /// Whose reply it is, its status, and what it comes to.
    fn read_reply(&self, body: &Body) -> (String, String, String) {
        self.signer.key().verify(body).unwrap();
        let parent: Value = serde_json::from_slice(body.parent_header()).unwrap();
        let header: Value = serde_json::from_slice(body.header()).unwrap();
        let content: Value = serde_json::from_slice(body.content()).unwrap();
        let id = parent["msg_id"].as_str().unwrap().to_owned();
        let status = content["status"].as_str().unwrap().to_owned();
        let ours = header["session"] == "scheduler";
        let word = match content["ename"].as_str() {
            Some(ename) if ours => ename.to_owned(),
            _ if ours => format!("{status} by the scheduler"),
            _ => status.clone(),
        };
        (id, status, word)
    }

    fn compare(&mut self, did: &Did, expected: &Did) {
        self.scheduler.check();
        assert_eq!(did, expected, "scheduler, then model");
        let counts = self.scheduler.counts();
        assert_eq!((counts.waiting, counts.ready, counts.assigned), self.model.counts());
        let loads: Vec<(String, usize)> = self.model.loads().into_iter().collect();
        let mut real: Vec<(String, usize)> =
            self.scheduler.loads().map(|(engine, load)| (engine.to_string(), load)).collect();
        real.sort();
        assert_eq!(real, loads);
        self.explain();
    }

    /// Asks what every task waits for: the answers agree with the state, and nothing is changed by asking.
    fn explain(&mut self) {
        let msg_ids: Vec<MsgId> = (0..=self.tasks).map(|task| MsgId::from(format!("t{task}"))).collect();
        let before = format!("{:?}", self.scheduler);
        let out = self.handle(TaskEvent::Explain { question: 7, msg_ids, whole: true });
        assert_eq!(format!("{:?}", self.scheduler), before, "to ask is to change");
        let [TaskEffect::Monitor(Monitor::Explained(explanation))] = &out[..] else { panic!("{out:?}") };
        let whole = explanation.scheduler.as_ref().unwrap();
        let outstanding: u64 = whole.engines.iter().map(|engine| engine.outstanding).sum();
        assert!(outstanding <= whole.assigned, "engines that left have the rest: {whole:?}");
        assert_eq!(whole.engines.len(), self.scheduler.engine_count());
        let mut counts = (0, 0, 0);
        for known in &explanation.tasks {
            let Known::Live(task) = known else { continue };
            match &task.state {
                TaskState::Waiting(waiting) => {
                    counts.0 += 1;
                    let named =
                        [&waiting.after, &waiting.follow].into_iter().flatten().any(|of| !of.unfinished.is_empty());
                    assert!(named, "{waiting:?} waits for nothing");
                }
                TaskState::Ready(ready) => {
                    counts.1 += 1;
                    let told: u64 = ready.obstacles.iter().map(|obstacle| obstacle.engines).sum();
                    assert!(told >= ready.registered, "an engine has no reason: {ready:?}");
                    for obstacle in &ready.obstacles {
                        assert!(obstacle.named.len() as u64 <= obstacle.engines);
                        if obstacle.why == Why::NoRoom {
                            let full = |load: &EngineLoad| ready.hwm > 0 && load.tasks >= ready.hwm.into();
                            assert!(obstacle.named.iter().all(full), "there is room: {ready:?}");
                        }
                    }
                }
                TaskState::Assigned(_) => counts.2 += 1,
                other => panic!("{other:?} is no state of a live task"),
            }
            assert_eq!(task.attempts.len() as u64, task.tried.min(MAX_ATTEMPTS as u64));
        }
        assert_eq!(counts, self.model.counts());
    }

    /// A request for a task.
    fn request(&self, task: &Submission) -> Body {
        let dependency = |dependency: &Dependency| {
            let Dependency { ids, all, success, failure } = dependency;
            json!({"dependencies": ids, "all": all, "success": success, "failure": failure})
        };
        let timeout = task.timeout.map(|timeout| timeout.as_secs_f64());
        let metadata = json!({"after": dependency(&task.after), "follow": dependency(&task.follow),
            "targets": task.targets, "retries": task.retries, "timeout": timeout, "remuda": {"priority": task.priority}});
        let content = match task.need {
            "process" => json!({"remuda": {"process": {"argv": ["true"]}}}),
            "mul" => json!({"remuda": {"function": "mul"}}),
            _ => json!({}),
        };
        let header = json!({"msg_id": task.id, "msg_type": "apply_request"});
        self.body(&header, &json!({}), &metadata, &content)
    }

    fn repeat(&mut self, task: Submission) {
        let body = self.request(&task);
        self.of_hub.insert(task.id.clone());
        let out = self.handle(TaskEvent::Resubmit { msg_id: MsgId::from(&*task.id), body });
        let told = out.iter().any(|effect| matches!(effect, TaskEffect::Monitor(Monitor::Request { .. })));
        assert!(!told, "the hub knows of it: {out:?}");
        let did = self.did(&out);
        let expected = self.model.submit(self.now.instant, task, &did);
        self.compare(&did, &expected);
    }

    /// The hub repeats a task under an id that is taken: it is told why that cannot be, and nothing else happens.
    fn repeat_in_vain(&mut self, task: &Submission) {
        let body = self.request(task);
        let out = self.handle(TaskEvent::Resubmit { msg_id: MsgId::from(&*task.id), body });
        let [
            TaskEffect::Monitor(Monitor::Reply { msg_id, engine: None, status: Status::Error, body, .. }),
            TaskEffect::Refused { refusal: Refusal::Resubmitted(_), .. },
        ] = &out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!(msg_id.as_str(), task.id);
        assert_eq!(self.read_reply(body).2, "RuntimeError");
        self.compare(&Did::default(), &Did::default());
    }

    fn submit(&mut self, task: Submission) {
        let body = self.request(&task);
        let out = self.handle(TaskEvent::Submit { client: identity("client"), body });
        let again =
            out.iter().any(|effect| matches!(effect, TaskEffect::Refused { refusal: Refusal::Resubmitted(_), .. }));
        assert!(!again || out.len() == 1, "{out:?}");
        let did = self.did(&out);
        let expected = self.model.submit(self.now.instant, task, &did);
        self.compare(&did, &expected);
    }

    fn answer(&mut self, engine: &str, id: &str, outcome: Outcome) {
        let status = match outcome {
            Outcome::Ok => "ok",
            Outcome::Aborted => "aborted",
            Outcome::Error | Outcome::Unmet => "error",
        };
        let metadata = json!({"status": status, "dependencies_met": outcome != Outcome::Unmet});
        let header = json!({"msg_id": "reply", "msg_type": "apply_reply", "session": engine});
        let body = self.body(&header, &json!({"msg_id": id}), &metadata, &json!({"status": status}));
        let out = self.handle(TaskEvent::Result { engine: identity(engine), client: identity("client"), body });
        let did = self.did(&out);
        let expected = self.model.result(self.now.instant, engine, id, outcome, &did);
        self.compare(&did, &expected);
    }

    fn join(&mut self, engine: &str, serves: [bool; 3]) {
        let uuid = EngineUuid::from(engine);
        let out = self.handle(TaskEvent::Registered { uuid, capability: capability(serves) });
        let did = self.did(&out);
        let serves = NEEDS.into_iter().zip(serves).filter(|(_, serves)| *serves).map(|(need, _)| need).collect();
        let expected = self.model.join(self.now.instant, engine, serves, &did);
        self.compare(&did, &expected);
    }

    fn drain(&mut self, engine: &str, drain: bool) {
        let request = drain.then_some(5);
        let out = self.handle(TaskEvent::Drain { uuid: EngineUuid::from(engine), request });
        let did = self.did(&out);
        let expected = self.model.drain(self.now.instant, engine, drain, &did);
        self.compare(&did, &expected);
    }

    fn pass(&mut self, seconds: u8) {
        let end = self.now.instant + Duration::from_secs(seconds.into());
        while let Some(deadline) = self.scheduler.deadline().filter(|deadline| *deadline <= end) {
            self.now.instant = deadline.max(self.now.instant);
            let mut out = Vec::new();
            self.scheduler.on_deadline(self.now, &mut out);
            let did = self.did(&out);
            let expected = self.model.timers(self.now.instant, &did);
            self.compare(&did, &expected);
        }
        self.now.instant = end;
        let mut out = Vec::new();
        self.scheduler.on_deadline(self.now, &mut out);
        assert!(out.is_empty(), "{out:?}");
    }

    fn play(&mut self, op: Op) {
        let newest = self.tasks;
        match op {
            Op::Submit { after, follow, targets, retries, timeout_s, need, priority, by_hub } => {
                self.tasks += 1;
                let dependency = |ids: Ids| Dependency {
                    ids: ids.back.iter().map(|back| before(newest, *back)).collect(),
                    all: ids.all,
                    success: ids.success,
                    failure: ids.failure,
                };
                let mut after = dependency(after);
                let mut follow = dependency(follow);
                for dependency in [&mut after, &mut follow] {
                    dependency.ids.sort();
                    dependency.ids.dedup();
                }
                let task = Submission {
                    id: format!("t{newest}"),
                    need: NEEDS[need],
                    after,
                    follow,
                    targets: targets.iter().map(|engine| format!("e{engine}")).collect(),
                    retries,
                    // 0 would be none at all.
                    timeout: timeout_s.map(|seconds| Duration::from_millis(u64::from(seconds) * 1000 + 500)),
                    priority,
                };
                if by_hub { self.repeat(task) } else { self.submit(task) }
            }
            Op::Answer { which, outcome } => {
                let running = self.model.running();
                if let Some((id, engine)) = running.get(usize::from(which) % running.len().max(1)) {
                    self.answer(engine, id, outcome);
                }
            }
            Op::Stray { engine, task, outcome } => {
                self.answer(&format!("e{engine}"), &format!("t{}", usize::from(task) % (newest + 1)), outcome);
            }
            Op::Join { engine, serves } => self.join(&format!("e{engine}"), serves),
            Op::Leave { engine } => {
                let engine = format!("e{engine}");
                let out = self.handle(TaskEvent::Unregistered { uuid: EngineUuid::from(&*engine) });
                let did = self.did(&out);
                let expected = self.model.leave(self.now.instant, &engine, &did);
                self.compare(&did, &expected);
            }
            Op::Drain { engine, drain } => {
                self.drain(&format!("e{engine}"), drain);
            }
            Op::Pass { seconds } => self.pass(seconds),
            Op::Abort { tasks } => {
                let ids: Vec<String> =
                    tasks.iter().map(|task| format!("t{}", usize::from(*task) % (newest + 1))).collect();
                let msg_ids = ids.iter().map(|id| MsgId::from(&**id)).collect();
                let out = self.handle(TaskEvent::Abort { msg_ids, stop: false });
                let did = self.did(&out);
                let expected = self.model.abort(self.now.instant, &ids, &did);
                self.compare(&did, &expected);
            }
            Op::SameId { task, by_hub } if newest > 0 => {
                let nothing = || Dependency { ids: Vec::new(), all: true, success: true, failure: false };
                let task = Submission {
                    id: format!("t{}", usize::from(task) % newest),
                    need: NEEDS[0],
                    after: nothing(),
                    follow: nothing(),
                    targets: Vec::new(),
                    retries: 0,
                    timeout: None,
                    priority: 0,
                };
                if by_hub { self.repeat_in_vain(&task) } else { self.submit(task) }
            }
            Op::SameId { .. } => {}
        }
    }

    /// Gives every task what it needs to end: engines that can run everything, and answers.
    fn settle(&mut self) {
        for engine in self.model.draining() {
            self.drain(&engine, false);
        }
        for round in 0.. {
            if self.model.live() == 0 {
                break;
            }
            assert!(round < 1000, "these do not end: {:?}", self.model);
            self.join(&format!("last{round}"), [true; 3]);
            for (id, engine) in self.model.running() {
                self.answer(&engine, &id, Outcome::Ok);
            }
        }
        assert!(self.scheduler.is_idle(), "something is left: {:?}", self.scheduler);
        assert_eq!(self.answered.len(), self.tasks, "every task has one reply");
        self.pass(255);
    }
}

/// The id of the task that came `back` tasks before task `number`, or one that no task has.
fn before(number: usize, back: u8) -> String {
    number.checked_sub(back.into()).map_or_else(|| "never".to_owned(), |number| format!("t{number}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Fails when the scheduler answers a task twice or not at all, sends one anywhere or at any time but where and when
    /// the rules say, lets an engine have more than it should, or loses count of anything.
    #[test]
    fn the_scheduler_does_what_the_model_does(
        scheme in prop::sample::select(Scheme::ALL.to_vec()),
        hwm in prop_oneof![3 => Just(1_u32), 1 => Just(0), 2 => 2..4_u32],
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut both = Both::new(scheme, hwm, seed);
        ops.into_iter().for_each(|op| both.play(op));
        both.settle();
    }
}
