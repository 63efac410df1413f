//! The task scheduler dies at any moment, and another one takes over what was on record at some moment before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use remuda_proto::message::native::{Announcement, Capability};
use remuda_proto::message::probe::ProbeContent;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::recovery::{FinishedTask, Recovered, Recovery};
use remuda_proto::{
    Body, Date, EngineUuid, Envelope, Identity, Instant, Key, Machine, MsgId, MsgType, Now, Packer, Session, SessionId,
    Status,
};
use remuda_scheduler::{Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde_json::{Value, json};

const REATTACH: Duration = Duration::from_secs(20);
const ENGINES: usize = 4;
/// So many more come in the end, for what the others tried.
const FRESH: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    /// `after` counts backwards.
    Submit {
        after: Option<u8>,
        retries: u8,
        program: bool,
        timeout: bool,
    },
    /// An engine does the next thing that it has.
    Work {
        engine: u8,
        ok: bool,
    },
    Join {
        engine: u8,
    },
    Die {
        engine: u8,
    },
    Pass {
        seconds: u8,
    },
}

/// What is lost of an engine's connection with the controller: answers, then requests; or the engine itself.
#[derive(Clone, Debug)]
struct Break {
    answers: u8,
    requests: u8,
    dies: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let after = prop_oneof![3 => Just(None), 1 => (1..4_u8).prop_map(Some)];
    prop_oneof![
        6 => (after, 0..3_u8, prop::bool::weighted(0.4), prop::bool::weighted(0.1))
            .prop_map(|(after, retries, program, timeout)| Op::Submit { after, retries, program, timeout }),
        8 => (0..4_u8, prop::bool::weighted(0.8)).prop_map(|(engine, ok)| Op::Work { engine, ok }),
        4 => (0..4_u8).prop_map(|engine| Op::Join { engine }),
        1 => (0..4_u8).prop_map(|engine| Op::Die { engine }),
        2 => (0..7_u8).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

/// An engine: even ones are stock, odd ones native.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is true of an engine whatever the others are")]
struct Engine {
    lives: bool,
    /// The hub says that it is there.
    registered: bool,
    /// It was there when the hub last heard of it, under whichever controller.
    on_record: bool,
    /// It answered since it was registered, or had nothing to answer.
    joined: bool,
    queue: VecDeque<Body>,
    /// The signatures that it has had.
    seen: BTreeSet<Vec<u8>>,
    /// A native one keeps its answers.
    answers: BTreeMap<String, Body>,
}

/// All that is outside the scheduler.
struct Cluster {
    scheduler: TaskScheduler,
    config: TaskConfig,
    signer: Session,
    now: Now,
    engines: Vec<Engine>,
    /// What the hub was told.
    log: Vec<Monitor>,
    tasks: usize,
    /// How many replies each task got from this scheduler.
    replies: BTreeMap<String, usize>,
    /// When held tasks are let go.
    held_until: Instant,
    /// Tasks that a second engine got since the first was not heard of in time. From then on more than one may have them.
    twice: BTreeSet<String>,
}

fn scheduler(config: &TaskConfig, life: u32) -> TaskScheduler {
    let session = Session::new(SessionId::from("scheduler"), "u", Key::new("k"), Packer::Json, life);
    TaskScheduler::new(config.clone(), session)
}

fn uuid(engine: usize) -> EngineUuid {
    EngineUuid::from(format!("e{engine}"))
}

fn id_of(body: &Body) -> String {
    Envelope::read(Packer::Json, body).unwrap().msg_id.to_string()
}

impl Cluster {
    fn new(scheme: Scheme, hwm: u32) -> Self {
        let config = TaskConfig { scheme, hwm, reattach: REATTACH, ..TaskConfig::default() };
        Self {
            scheduler: scheduler(&config, 0),
            config,
            signer: Session::new(SessionId::from("signer"), "u", Key::new("k"), Packer::Json, 1),
            now: Now { instant: Instant(0), date: Date(1_700_000_000_000_000) },
            engines: (0..ENGINES + FRESH).map(|_| Engine::default()).collect(),
            log: Vec::new(),
            tasks: 0,
            replies: BTreeMap::new(),
            held_until: Instant(0),
            twice: BTreeSet::new(),
        }
    }

    fn body(&self, header: &Value, parent: &Value, metadata: &Value, content: &Value) -> Body {
        let [header, parent, metadata, content] =
            [header, parent, metadata, content].map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&header, &parent, &metadata, &content], [])
    }

    fn handle(&mut self, event: TaskEvent) {
        let mut out = Vec::new();
        self.scheduler.handle(self.now, event, &mut out);
        self.scheduler.check();
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<TaskEffect>) {
        for effect in effects {
            match effect {
                TaskEffect::Monitor(seen) => self.log.push(seen),
                TaskEffect::ToEngine { engine, body, .. } => self.send(&engine, body),
                TaskEffect::ToClient { client, body, .. } => {
                    self.signer.key().verify(&body).unwrap();
                    let parent: Value = serde_json::from_slice(body.parent_header()).unwrap();
                    let id = parent["msg_id"].as_str().unwrap().to_owned();
                    assert_eq!(client, Identity::from(format!("client of {id}").as_bytes()));
                    *self.replies.entry(id).or_default() += 1;
                }
                TaskEffect::Refused { .. } => {}
                TaskEffect::PauseIntake(_) | TaskEffect::ResumeIntake => panic!("no limit is near"),
            }
        }
    }

    /// A message reaches an engine.
    fn send(&mut self, engine: &Identity, body: Body) {
        let at = (0..ENGINES + FRESH).find(|at| uuid(*at).identity() == *engine).unwrap();
        self.signer.key().verify(&body).unwrap();
        let envelope = Envelope::read(Packer::Json, &body).unwrap();
        if envelope.msg_type != MsgType::KernelInfoRequest {
            let id = envelope.msg_id.to_string();
            assert!(self.engines[at].registered, "{engine} is sent `{id}` and is not there");
            for (other, has) in self.engines.iter().enumerate() {
                let is_known = has.joined || self.now.instant < self.held_until;
                let has_it = has.lives && has.queue.iter().any(|queued| id_of(queued) == id);
                if other != at && has_it && !self.twice.contains(&id) {
                    assert!(!is_known, "{engine} is sent `{id}`, which e{other} has");
                    self.twice.insert(id.clone());
                }
            }
        }
        if self.engines[at].lives && self.engines[at].seen.insert(body.signature().to_vec()) {
            self.engines[at].queue.push_back(body);
        }
        if at % 2 == 1 {
            self.answer_question_at_once(at);
        }
    }

    /// A native engine does not let the controller wait.
    fn answer_question_at_once(&mut self, at: usize) {
        let is_question =
            |body: &Body| Envelope::read(Packer::Json, body).unwrap().msg_type == MsgType::KernelInfoRequest;
        let Some(place) = self.engines[at].queue.iter().position(is_question) else { return };
        let question = self.engines[at].queue.remove(place).unwrap();
        let content: ProbeContent = Packer::Json.unpack(question.content()).unwrap();
        for msg_id in content.remuda.unwrap().assigned {
            if let Some(body) = self.engines[at].answers.get(msg_id.as_str()).cloned() {
                self.result(at, body);
            }
        }
        let has: Vec<String> = self.engines[at].queue.iter().map(id_of).collect();
        self.answer_question(at, &question, &json!({"status": "ok", "remuda": {"has": has}}));
    }

    fn answer_question(&mut self, at: usize, question: &Body, content: &Value) {
        // What an earlier controller asked says nothing to this one.
        let before = self.scheduler.engine_count();
        let header = json!({"msg_id": "r", "msg_type": "kernel_info_reply"});
        let body = self.body(&header, &json!({"msg_id": id_of(question)}), &json!({}), content);
        self.result(at, body);
        self.engines[at].joined |= self.scheduler.engine_count() > before;
    }

    fn result(&mut self, at: usize, body: Body) {
        let client = Identity::from(&b"whoever"[..]);
        self.handle(TaskEvent::Result { engine: uuid(at).identity(), client, body });
    }

    /// An engine does the next thing that it has; its answer arrives unless it is lost.
    fn work(&mut self, at: usize, ok: bool, arrives: bool) {
        let Some(request) = self.engines[at].queue.pop_front() else { return };
        if Envelope::read(Packer::Json, &request).unwrap().msg_type == MsgType::KernelInfoRequest {
            if arrives {
                self.answer_question(at, &request, &json!({"status": "ok"}));
            }
            return;
        }
        let (id, status) = (id_of(&request), if ok { "ok" } else { "error" });
        // What was sent once more is not run once more.
        let body = self.engines[at].answers.get(&id).cloned().unwrap_or_else(|| {
            let header = json!({"msg_id": "r", "msg_type": "apply_reply"});
            let metadata = json!({"status": status, "dependencies_met": true});
            self.body(&header, &json!({"msg_id": id}), &metadata, &json!({"status": status}))
        });
        if at % 2 == 1 {
            self.engines[at].answers.insert(id, body.clone());
        }
        if arrives {
            self.result(at, body);
        }
    }

    fn join(&mut self, at: usize) {
        let engine = &mut self.engines[at];
        if engine.registered {
            return;
        }
        if !engine.lives {
            *engine = Engine { lives: true, ..Engine::default() };
        }
        (engine.registered, engine.on_record) = (true, true);
        let native = Announcement { process: true, ..Announcement::default() };
        let capability = if at % 2 == 1 { Capability::native(&native) } else { Capability::stock() };
        let before = self.scheduler.engine_count();
        self.handle(TaskEvent::Registered { uuid: uuid(at), capability });
        self.engines[at].joined |= self.scheduler.engine_count() > before;
    }

    fn die(&mut self, at: usize) {
        let was_registered = self.engines[at].registered;
        self.engines[at] = Engine::default();
        if was_registered {
            self.handle(TaskEvent::Unregistered { uuid: uuid(at) });
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(deadline) = self.scheduler.deadline().filter(|deadline| *deadline <= end) {
            self.now.date.0 += 1;
            self.now.instant = deadline.max(self.now.instant);
            let mut out = Vec::new();
            self.scheduler.on_deadline(self.now, &mut out);
            self.scheduler.check();
            self.perform(out);
        }
        self.now.instant = end;
    }

    fn play(&mut self, op: &Op) {
        self.now.date.0 += 1;
        match *op {
            Op::Submit { after, retries, program, timeout } => {
                let number = self.tasks;
                self.tasks += 1;
                let after = after.and_then(|back| number.checked_sub(back.into())).map(|task| format!("t{task}"));
                let after: Vec<String> = after.into_iter().collect();
                let timeout = if timeout { 3.0 } else { 0.0 };
                let metadata = json!({"after": after, "retries": retries, "timeout": timeout});
                let content = if program { json!({"remuda": {"process": {"argv": ["x"]}}}) } else { json!({}) };
                let header = json!({"msg_id": format!("t{number}"), "msg_type": "apply_request"});
                let body = self.body(&header, &json!({}), &metadata, &content);
                let client = Identity::from(format!("client of t{number}").as_bytes());
                self.handle(TaskEvent::Submit { client, body });
            }
            Op::Work { engine, ok } => self.work(usize::from(engine), ok, true),
            Op::Join { engine } => self.join(usize::from(engine)),
            Op::Die { engine } => self.die(usize::from(engine)),
            Op::Pass { seconds } => self.pass(Duration::from_secs(seconds.into())),
        }
    }

    /// What is on record of the first so many reports.
    fn records(&self, reports: usize) -> Recovery {
        let mut tasks: Vec<Recovered> = Vec::new();
        let mut finished = Vec::new();
        for seen in &self.log[..reports] {
            match seen {
                Monitor::Request { client, envelope, body, .. } => {
                    let metadata: Value = serde_json::from_slice(body.metadata()).unwrap();
                    tasks.push(Recovered {
                        queue: Queue::Task,
                        client: client.clone(),
                        msg_id: envelope.msg_id.clone(),
                        body: body.clone(),
                        engine: None,
                        tried: Vec::new(),
                        retries: u32::try_from(metadata["retries"].as_u64().unwrap()).unwrap(),
                        waited: Duration::ZERO,
                    });
                }
                Monitor::Destination { msg_id, engine, retries } => {
                    let task = tasks.iter_mut().find(|task| task.msg_id == *msg_id).unwrap();
                    (task.engine, task.retries) = (Some(engine.clone()), *retries);
                }
                Monitor::Requeued { msg_id, retries } => {
                    let task = tasks.iter_mut().find(|task| task.msg_id == *msg_id).unwrap();
                    task.tried.extend(task.engine.take());
                    task.retries = *retries;
                }
                Monitor::Reply { msg_id, status, engine, .. } => {
                    tasks.retain(|task| task.msg_id != *msg_id);
                    let ok = *status == Status::Ok;
                    finished.push(FinishedTask { msg_id: msg_id.clone(), ok, engine: engine.clone() });
                }
                _ => {}
            }
        }
        let engines = (0..ENGINES).filter(|at| self.engines[*at].on_record).map(uuid).collect();
        Recovery { tasks, finished, engines, replies: Vec::new() }
    }

    /// The controller dies, and another one starts that knows of so many reports. Returns the tasks that it took over.
    fn die_and_take_over(&mut self, life: u32, reports: usize, breaks: &[Break]) -> BTreeSet<MsgId> {
        let recovery = self.records(reports);
        self.log.truncate(reports);
        for (at, Break { answers, requests, dies }) in breaks.iter().enumerate() {
            for _ in 0..*answers {
                self.work(at, true, false);
            }
            let engine = &mut self.engines[at];
            let left = engine.queue.len().saturating_sub(usize::from(*requests));
            engine.queue.truncate(left);
            // What was asked is asked in vain.
            (engine.registered, engine.joined) = (false, false);
            if *dies {
                *engine = Engine { on_record: engine.on_record, ..Engine::default() };
            }
        }
        self.scheduler = scheduler(&self.config, life);
        self.replies.clear();
        self.now.instant = self.now.instant + Duration::from_secs(1);
        self.held_until = self.now.instant + REATTACH;
        let taken = recovery.tasks.iter().map(|task| task.msg_id.clone()).collect();
        self.handle(TaskEvent::Recover(Box::new(recovery)));
        taken
    }

    /// Gives every task what it needs to end.
    fn settle(&mut self) {
        for round in 0.. {
            if self.scheduler.is_empty() {
                break;
            }
            assert!(round < 400, "these do not end: {:?}", self.scheduler);
            for at in 0..if round < 30 { ENGINES } else { ENGINES + FRESH } {
                self.join(at);
                while !self.engines[at].queue.is_empty() {
                    self.work(at, true, true);
                }
            }
            self.pass(Duration::from_secs(1));
        }
        assert!(self.scheduler.is_idle(), "something is left: {:?}", self.scheduler);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Fails when a task that is on record has no reply or two, when one that is not on record or was answered has any,
    /// when a task is sent to an engine while another one has it that could be heard, or when a task hangs since its engine
    /// drops what it has had before.
    #[test]
    fn every_task_on_record_is_answered_once_by_whoever_takes_over(
        scheme in prop::sample::select(vec![Scheme::LeastLoad, Scheme::PlainRandom, Scheme::Pure]),
        hwm in prop_oneof![2 => Just(1_u32), 1 => Just(0), 2 => 2..4_u32],
        lives in prop::collection::vec(
            (
                prop::collection::vec(op(), 1..40),
                0.0..1.0_f64,
                prop::collection::vec(
                    (0..3_u8, 0..3_u8, prop::bool::weighted(0.15))
                        .prop_map(|(answers, requests, dies)| Break { answers, requests, dies }),
                    ENGINES,
                ),
            ),
            1..4,
        ),
        last in prop::collection::vec(op(), 0..40),
    ) {
        let mut cluster = Cluster::new(scheme, hwm);
        let (mut taken, mut on_disk) = (BTreeSet::new(), 0);
        for (life, (ops, cut, breaks)) in (1..).zip(lives) {
            ops.iter().for_each(|op| cluster.play(op));
            // The last moments may be missing, and sometimes nothing is.
            let least = cluster.log.len().saturating_sub(12).max(on_disk);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 13")]
            let reports = (least + (cut * 13.0) as usize).min(cluster.log.len());
            on_disk = reports;
            taken = cluster.die_and_take_over(life, reports, &breaks);
        }
        let first_new = cluster.tasks;
        last.iter().for_each(|op| cluster.play(op));
        cluster.settle();
        let new = (first_new..cluster.tasks).map(|task| MsgId::from(format!("t{task}")));
        let expected: BTreeMap<String, usize> =
            taken.into_iter().chain(new).map(|msg_id| (msg_id.to_string(), 1)).collect();
        prop_assert_eq!(&cluster.replies, &expected);
    }
}
