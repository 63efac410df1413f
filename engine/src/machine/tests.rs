//! Stories: events in, effects compared.

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::message::metadata::ReplyMetadata;
use remuda_proto::message::native::ProcessOutcome;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Envelope, Key, Packer};
use serde_json::Value;

use super::*;

fn gist_of(work: &Work) -> String {
    match work {
        Work::Function { name, .. } => name.clone(),
        Work::Process { task, .. } => task.argv.join(" "),
    }
}

/// An engine, its controller and a client, all in one.
struct Story {
    engine: EngineCore,
    peer: Session,
    now: Now,
    last: Vec<Effect>,
    /// Names for the ids of messages, in the order sent.
    sent: Vec<MsgId>,
    /// What is lined up.
    line: VecDeque<MsgId>,
}

impl Story {
    fn new(packer: Packer) -> Self {
        let announcement = Announcement {
            version: "1.2.3".into(),
            functions: vec!["mul".into(), "div".into()],
            process: true,
            ..Announcement::default()
        };
        let key = Key::new("key");
        Self {
            engine: EngineCore::new(Config {
                session: Session::new("engine-uuid".into(), "u", key.clone(), packer, 1),
                id: None,
                announcement,
                null: false,
                registration_timeout: Duration::from_secs(5),
                max_missed_pings: 50,
            }),
            peer: Session::new("peer".into(), "u", key, packer, 2),
            now: Now { instant: Instant(1_000_000_000), date: Date(1_700_000_000_000_001) },
            last: Vec::new(),
            sent: Vec::new(),
            line: VecDeque::new(),
        }
    }

    /// Registered, with so many slots, and more to take.
    fn with(slots: u32, resources: &[(&str, u32)]) -> Self {
        let mut story = Self::new(Packer::Json);
        story.engine.announcement.slots = slots;
        let amount = |amount| remuda_proto::message::needs::Amount::whole(amount).unwrap();
        let resources = resources.iter().map(|(name, count)| ((*name).into(), amount(*count)));
        story.engine.announcement.resources = resources.collect();
        story.engine.room = Room::new(Capability::native(&story.engine.announcement));
        story.serve();
        story
    }

    fn program_with(&mut self, extras: &Value) -> Vec<String> {
        let content = json!({"remuda": {"process": {"argv": ["a"]}}});
        let body = self.message(MsgType::ApplyRequest, &json!({"remuda": extras}), &content, &[]);
        self.step(Event::Shell(frames(body)))
    }

    /// Registered as engine 3, with a heartbeat of one second.
    fn serving() -> Self {
        let mut story = Self::new(Packer::Json);
        story.serve();
        story
    }

    fn serve(&mut self) {
        self.step(Event::Start);
        let reply = json!({"id": 3, "status": "ok", "hb_period": 1000, "connection_info": {}});
        let body = self.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
        self.step(Event::Registered(body));
        self.sent.clear();
    }

    fn message(&mut self, msg_type: MsgType, metadata: &Value, content: &Value, buffers: &[Bytes]) -> Body {
        let (msg_id, body) = self.peer.message(self.now.date, msg_type, None, metadata, content, buffers).unwrap();
        self.sent.push(msg_id);
        body
    }

    /// One step; afterwards the state is sound, and all that was written is signed.
    fn step(&mut self, event: Event) -> Vec<String> {
        self.last.clear();
        self.engine.handle(self.now, event, &mut self.last);
        for effect in &self.last {
            if let Effect::LineUp { msg_id, .. } = effect {
                self.line.push_back(msg_id.clone());
            }
        }
        self.told()
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now.instant = self.now.instant + time;
        self.last.clear();
        self.engine.on_deadline(self.now, &mut self.last);
        self.told()
    }

    fn told(&self) -> Vec<String> {
        self.engine.check();
        self.last.iter().map(|effect| self.tell(effect)).collect()
    }

    fn tell(&self, effect: &Effect) -> String {
        match effect {
            Effect::Hub(body) => format!("hub {}: {}", self.of(body), String::from_utf8_lossy(body.content())),
            Effect::Connect { id } => format!("connect as {id}"),
            Effect::Reply { link, idents, body } => {
                format!("{link:?} {idents:?} {}: {}", self.of(body), self.gist(body))
            }
            Effect::Publish { topic, body } => format!("{topic} {}: {}", self.of(body), self.gist(body)),
            Effect::Start { msg_id, work, .. } => format!("start {}: {}", self.name(msg_id), gist_of(work)),
            Effect::LineUp { msg_id, work, .. } => format!("line up {}: {}", self.name(msg_id), gist_of(work)),
            Effect::StartNext => "start next".to_owned(),
            Effect::Withdraw { msg_id } => format!("withdraw {}", self.name(msg_id)),
            Effect::Signal { msg_id, signal } => format!("signal {}: {signal}", self.name(msg_id)),
            Effect::ReadOutput { number, part } => format!("read {number}: {}", part.offset),
            Effect::ReleaseOutput { msg_id } => format!("release {}", self.name(msg_id)),
            Effect::Refused { link, refusal, .. } => format!("refused {link:?}: {}", refusal.kind()),
            Effect::Exit(ending) => format!("exit {ending:?}"),
        }
    }

    /// `#1` for the second message that the peer sent.
    fn name(&self, msg_id: &MsgId) -> String {
        self.sent.iter().position(|sent| sent == msg_id).map_or_else(|| msg_id.to_string(), |at| format!("#{at}"))
    }

    /// `apply_reply of #0`
    fn of(&self, body: &Body) -> String {
        let packer = self.peer.packer();
        self.peer.key().verify(body).unwrap();
        let envelope = Envelope::read(packer, body).unwrap();
        assert_eq!(envelope.session.as_str(), "engine-uuid");
        match parent_msg_id(packer, body).unwrap() {
            Some(parent) => format!("{} of {}", envelope.msg_type, self.name(&parent)),
            None => envelope.msg_type.to_string(),
        }
    }

    fn gist(&self, body: &Body) -> String {
        let content: Value = self.peer.packer().unpack(body.content()).unwrap();
        ["execution_state", "text", "ename", "status"]
            .iter()
            .find_map(|key| content.get(key)?.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    fn shell(&mut self, msg_type: MsgType, content: &Value, buffers: &[Bytes]) -> Vec<String> {
        let body = self.message(msg_type, &json!({}), content, buffers);
        self.step(Event::Shell(frames(body)))
    }

    fn program(&mut self, argv: &[&str]) -> Vec<String> {
        self.shell(MsgType::ApplyRequest, &json!({"remuda": {"process": {"argv": argv}}}), &[])
    }

    fn function(&mut self, name: &str) -> Vec<String> {
        self.shell(MsgType::ApplyRequest, &json!({"remuda": {"function": name}}), &[Bytes::from_static(b"\x01")])
    }

    fn control(&mut self, msg_type: MsgType, content: &Value) -> Vec<String> {
        let body = self.message(msg_type, &json!({}), content, &[]);
        self.step(Event::Control(frames(body)))
    }

    /// A program by this id ended well.
    fn ended_of(&mut self, msg_id: &MsgId) -> Vec<String> {
        let task = self.sent.iter().position(|sent| sent == msg_id).unwrap();
        self.ended(task, outcome(Some(0), None))
    }

    fn ended(&mut self, task: usize, ended: ProcessOutcome) -> Vec<String> {
        let (stdout, stderr) = (Bytes::from_static(b"out"), Bytes::from_static(b"oh\nno\n"));
        self.done(task, Outcome::Program { ended, stdout, stderr, output: None })
    }

    /// What it runs is what it has begun, so the first that is lined up begins.
    fn done(&mut self, task: usize, outcome: Outcome) -> Vec<String> {
        let next = self.line.pop_front();
        self.step(Event::TaskDone { msg_id: self.sent[task].clone(), outcome, at: self.now.date, next })
    }

    /// The only reply of the last step.
    fn reply(&self) -> (Value, Value, Vec<Bytes>) {
        let bodies: Vec<&Body> = self
            .last
            .iter()
            .filter_map(|effect| if let Effect::Reply { body, .. } = effect { Some(body) } else { None })
            .collect();
        let [body] = bodies[..] else { panic!("{} replies", bodies.len()) };
        let packer = self.peer.packer();
        let buffers = (0..body.buffer_count()).map(|at| body.buffer(at).unwrap()).collect();
        (packer.unpack(body.metadata()).unwrap(), packer.unpack(body.content()).unwrap(), buffers)
    }
}

fn frames(body: Body) -> Frames {
    Frames::new([Identity::from(&b"mux"[..]), Identity::from(&[0, 1][..])], body)
}

fn outcome(exit_code: Option<i32>, signal: Option<i32>) -> ProcessOutcome {
    ProcessOutcome { exit_code, signal, wall_us: 5, ..ProcessOutcome::default() }
}

#[test]
fn an_engine_registers_then_connects() {
    let mut story = Story::new(Packer::Json);
    let asked = story.step(Event::Start);
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with(r#"hub registration_request: {"uuid":"engine-uuid","remuda":{"version":"1.2.3""#));
    let reply = json!({"id": 3, "status": "ok", "hb_period": 1000});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
    assert_eq!(story.step(Event::Registered(body.clone())), ["connect as 3", "engine.3.status status: starting"]);
    assert_eq!(story.step(Event::Registered(body)), ["refused Hub: replay"]);
}

#[test]
fn a_registration_that_is_refused_ends_the_engine_with_the_reason() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    let content = json!({"status": "error", "ename": "KeyError", "evalue": "in use", "traceback": []});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &content, &[]);
    story.step(Event::Registered(body));
    let [Effect::Exit(Ending::Refused(error))] = &story.last[..] else { panic!("{:?}", story.last) };
    assert_eq!(error.to_string(), "KeyError: in use");
    assert!(story.program(&["ls"]).is_empty(), "nothing has an effect after the end");
}

#[test]
fn a_controller_that_does_not_answer_is_given_up_in_time() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    assert!(story.pass(Duration::from_millis(4999)).is_empty());
    assert_eq!(
        story.pass(Duration::from_millis(1)),
        [r#"hub unregistration_request: {"id":null}"#, "exit NoAnswer { waited: 5s }"]
    );
    assert_eq!(story.engine.deadline(), None);
}

#[test]
fn a_function_gives_its_result_in_both_forms() {
    let mut story = Story::serving();
    assert_eq!(story.function("mul"), ["engine.3.status status of #0: busy", "start #0: mul"]);
    let (pickle, msgpack) = (Bytes::from_static(b"p"), Bytes::from_static(b"m"));
    assert_eq!(
        story.done(0, Outcome::Value { pickle: pickle.clone(), msgpack: msgpack.clone() }),
        ["Shell [mux, 0x0001] apply_reply of #0: ok", "engine.3.status status of #0: idle"]
    );
    let (metadata, content, buffers) = story.reply();
    assert_eq!(content, json!({"status": "ok", "remuda": "function"}));
    assert_eq!(buffers, [pickle, msgpack]);
    let metadata: ReplyMetadata = serde_json::from_value(metadata).unwrap();
    assert_eq!((metadata.engine.as_str(), metadata.status), ("engine-uuid", Status::Ok));
    assert!(metadata.dependencies_met && metadata.engine_info.is_none());
}

#[test]
fn metadata_of_a_broadcast_is_repeated() {
    let mut story = Story::serving();
    let metadata = json!({"is_broadcast": true, "is_coalescing": true, "original_msg_id": "o", "label": "l", "x": 1});
    let body = story.message(MsgType::ApplyRequest, &metadata, &json!({}), &[]);
    story.step(Event::Shell(frames(body)));
    let (metadata, ..) = story.reply();
    for (key, value) in [
        ("is_broadcast", json!(true)),
        ("is_coalescing", json!(true)),
        ("original_msg_id", json!("o")),
        ("label", json!("l")),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    let odd = json!({"is_broadcast": "yes", "original_msg_id": 5});
    let body = story.message(MsgType::ApplyRequest, &odd, &json!({}), &[]);
    story.step(Event::Shell(frames(body)));
    assert_eq!(story.reply().0["is_broadcast"], json!(false));
}

#[test]
fn metadata_that_makes_no_sense_costs_no_request_its_answer() {
    for metadata in [json!(12), json!("x"), json!([[]]), json!(null), json!({"label": {}, "is_broadcast": []})] {
        let mut story = Story::serving();
        let body = story.message(MsgType::KernelInfoRequest, &metadata, &json!({}), &[]);
        story.step(Event::Shell(frames(body)));
        assert_eq!(story.reply().0["status"], json!("ok"), "{metadata}");
    }
}

#[test]
fn a_program_gives_its_output_and_what_it_wrote_is_published_before() {
    let mut story = Story::serving();
    assert_eq!(story.program(&["echo", "hi"])[1], "start #0: echo hi");
    let msg_id = story.sent[0].clone();
    let output = |msg_id| Event::Output { msg_id, stream: Stream::Stdout, text: "hi\n".into() };
    assert_eq!(story.step(output(msg_id.clone())), ["engine.3.stdout stream of #0: hi\n"]);
    story.ended(0, outcome(Some(0), None));
    let (_, content, buffers) = story.reply();
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(0));
    assert_eq!(buffers[1..], [&b"out"[..], b"oh\nno\n"]);
    assert!(story.step(output(msg_id)).is_empty(), "it ended");
}

#[test]
fn a_program_that_fails_is_an_error_with_all_it_wrote() {
    let mut story = Story::serving();
    story.program(&["prog"]);
    assert_eq!(
        story.ended(0, outcome(Some(3), None)),
        [
            "engine.3.error error of #0: ProcessFailed",
            "Shell [mux, 0x0001] apply_reply of #0: ProcessFailed",
            "engine.3.status status of #0: idle"
        ]
    );
    let (metadata, content, buffers) = story.reply();
    assert_eq!(content["status"], json!("error"));
    assert_eq!(content["evalue"], json!("`prog` exited with code 3"));
    assert_eq!(content["traceback"], json!(["oh", "no", "ProcessFailed: `prog` exited with code 3"]));
    assert_eq!(content["engine_info"], json!({"engine_uuid": "engine-uuid", "engine_id": 3, "method": "apply"}));
    assert_eq!(metadata["engine_info"], json!({"engine_uuid": "engine-uuid", "engine_id": 3}));
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(3));
    assert_eq!(buffers.len(), 3);
}

#[test]
fn what_it_cannot_run_is_sent_elsewhere() {
    let mut story = Story::serving();
    for (msg_type, content, ename, words) in [
        (MsgType::ApplyRequest, json!({}), "UnmetDependency", "native engine"),
        (
            MsgType::ApplyRequest,
            json!({"remuda": {"function": "pow"}}),
            "UnmetDependency",
            "`pow`; it runs programs and the functions `div`, `mul`",
        ),
        (MsgType::ExecuteRequest, json!({"code": "1"}), "NotImplementedError", "runs no Python code"),
    ] {
        let told = story.shell(msg_type, &content, &[]);
        assert!(!told.iter().any(|line| line.contains(".error")), "it has not failed: {told:?}");
        let (metadata, content, _) = story.reply();
        assert_eq!(metadata["dependencies_met"], json!(false));
        assert_eq!(content["ename"], json!(ename));
        assert!(content["evalue"].as_str().unwrap().contains(words), "{content}");
    }
}

#[test]
fn a_task_that_makes_no_sense_fails() {
    let mut story = Story::serving();
    for content in [
        json!({"remuda": {"process": {"argv": []}}}),
        json!({"remuda": {"process": {"argv": [""]}}}),
        json!({"remuda": {"process": {"argv": ["cat"], "input": "stdin"}}}),
        json!({"remuda": {"dance": {}}}),
        json!({"remuda": 5}),
        json!([1]),
    ] {
        story.shell(MsgType::ApplyRequest, &content, &[]);
        let (metadata, reply, _) = story.reply();
        assert_eq!((&reply["ename"], &metadata["dependencies_met"]), (&json!("ValueError"), &json!(true)), "{content}");
    }
}

#[test]
fn other_requests_are_answered_and_other_messages_are_not() {
    let mut story = Story::serving();
    story.shell(MsgType::KernelInfoRequest, &json!({}), &[]);
    assert_eq!(story.reply().1["implementation"], json!("remuda"));
    let told = story.shell("history_request".into(), &json!({}), &[]);
    assert!(told.iter().any(|line| line.contains("history_reply of #1: NotImplementedError")), "{told:?}");
    assert_eq!(story.shell("comm_msg".into(), &json!({}), &[]), ["refused Shell: type"]);
}

#[test]
fn requests_have_their_turn_in_order_of_arrival() {
    let mut story = Story::serving();
    story.program(&["a"]);
    assert_eq!(story.program(&["b"]), ["line up #1: b"]);
    let told = story.shell(MsgType::ApplyRequest, &json!({}), &[]);
    assert_eq!(told[0], "engine.3.status status of #2: busy");
    assert!(told.contains(&"Shell [mux, 0x0001] apply_reply of #2: UnmetDependency".to_owned()), "{told:?}");
    assert_eq!(story.program(&["c"]), ["line up #3: c"]);
    assert_eq!(story.engine.load(), 3);
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "engine.3.status status of #1: busy");
    let told = story.ended(1, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "engine.3.status status of #3: busy");
    story.ended(3, outcome(Some(0), None));
    assert_eq!(story.engine.load(), 0);
}

#[test]
fn what_was_lined_up_too_late_for_the_last_end_is_begun_beside_what_runs() {
    // Two slots; both ends are on their way, and found nothing lined up.
    let mut story = Story::with(2, &[]);
    for name in ["a", "b", "c", "d", "e"] {
        story.program(&[name]);
    }
    let lined: Vec<MsgId> = std::mem::take(&mut story.line).into();
    assert_eq!(lined, story.sent[2..]);
    assert_eq!(story.ended(0, outcome(Some(0), None)).last().unwrap(), "start next");
    assert_eq!(story.ended(1, outcome(Some(0), None)).last().unwrap(), "start next");
    let began = |msg_id: Option<&MsgId>| Event::Began { msg_id: msg_id.cloned(), at: Date(5) };
    assert_eq!(story.step(began(Some(&lined[0]))), ["engine.3.status status of #2: busy"]);
    // The second is asked to begin beside it, and that was already done at the end of the first, of which we hear now.
    let (stdout, stderr) = (Bytes::new(), Bytes::new());
    let outcome = Outcome::Program { ended: outcome(Some(0), None), stdout, stderr, output: None };
    let done = Event::TaskDone { msg_id: lined[0].clone(), outcome, at: Date(6), next: Some(lined[1].clone()) };
    assert_eq!(story.step(done).last().unwrap(), "engine.3.status status of #3: busy");
    assert_eq!(story.step(began(Some(&lined[2]))), ["engine.3.status status of #4: busy"]);
    assert_eq!(story.engine.load(), 2);
    let (metadata, ..) = {
        story.ended_of(&lined[2]);
        story.reply()
    };
    assert_eq!(metadata["started"], json!("1970-01-01T00:00:00.000005Z"));
}

#[test]
fn nothing_is_lined_up_behind_what_takes_something_else() {
    let mut story = Story::with(3, &[]);
    assert_eq!(story.program_with(&json!({"needs": {"cpus": 2}}))[1], "start #0: a");
    assert_eq!(story.program_with(&json!({}))[1], "start #1: a");
    assert!(story.program_with(&json!({})).is_empty(), "what ends first may be too little, or too much");
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "start #2: a");
    assert_eq!(story.program_with(&json!({}))[1], "start #3: a");
    assert_eq!(story.program_with(&json!({})), ["line up #4: a"]);
    assert!(story.program_with(&json!({"needs": {"cpus": 0.5}})).is_empty(), "nor goes it before what is lined up");
}

#[test]
fn a_forged_or_replayed_message_has_no_effect() {
    let mut story = Story::serving();
    let body = story.message(MsgType::ApplyRequest, &json!({}), &json!({}), &[]);
    assert!(!story.step(Event::Shell(frames(body.clone()))).is_empty());
    assert_eq!(story.step(Event::Shell(frames(body.clone()))), ["refused Shell: replay"]);
    assert_eq!(story.step(Event::Control(frames(body))), ["refused Control: replay"]);
    let mut forger = Session::new("f".into(), "u", Key::new("other"), Packer::Json, 1);
    let body = forger.message(Date(0), MsgType::ShutdownRequest, None, &json!({}), &json!({}), &[]).unwrap().1;
    assert_eq!(story.step(Event::Control(frames(body))), ["refused Control: signature"]);
}

#[test]
fn an_aborted_task_is_answered_at_once_and_one_still_on_its_way_on_arrival() {
    let mut story = Story::serving();
    story.program(&["a"]);
    story.program(&["b"]);
    let late = story.message(MsgType::ApplyRequest, &json!({}), &json!({"remuda": {"function": "mul"}}), &[]);
    let ids = [&story.sent[0], &story.sent[1], &story.sent[2]].map(MsgId::as_str);
    let told = story.control(MsgType::AbortRequest, &json!({"msg_ids": ids}));
    assert_eq!(
        told,
        [
            "engine.3.status status of #3: busy",
            "withdraw #1",
            "Control [mux, 0x0001] abort_reply of #3: ok",
            "engine.3.status status of #3: idle",
        ]
    );
    let withdrawn = story.line.pop_front().unwrap();
    let twice = story.control(MsgType::AbortRequest, &json!({"msg_ids": [withdrawn]}));
    assert!(!twice.iter().any(|line| line.starts_with("withdraw")), "once is enough: {twice:?}");
    assert_eq!(
        story.step(Event::Withdrawn { msg_id: withdrawn }),
        [
            "engine.3.status status of #1: busy",
            "Shell [mux, 0x0001] apply_reply of #1: aborted",
            "engine.3.status status of #1: idle",
        ]
    );
    let told = story.step(Event::Shell(frames(late)));
    assert_eq!(told[1], "Shell [mux, 0x0001] apply_reply of #2: aborted");
    assert_eq!(story.reply().0["status"], json!("aborted"));
    assert_eq!(story.ended(0, outcome(Some(0), None)).len(), 2, "the running one went on");
}

#[test]
fn what_began_before_it_could_be_taken_back_goes_on_or_is_stopped() {
    let mut story = Story::serving();
    for name in ["a", "b", "c"] {
        story.program(&[name]);
    }
    let [aborted, stopped] = [1, 2].map(|task| story.sent[task].clone());
    story.control(MsgType::AbortRequest, &json!({"msg_ids": [aborted]}));
    let stop = json!({"msg_ids": [stopped], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &stop).contains(&"withdraw #2".to_owned()));
    assert_eq!(story.ended(0, outcome(Some(0), None)).last().unwrap(), "engine.3.status status of #1: busy");
    assert_eq!(story.ended(1, outcome(Some(0), None)).last().unwrap(), "signal #2: 15");
    story.ended(2, outcome(None, Some(15)));
    assert_eq!(story.reply().1["ename"], json!("TaskStopped"));
}

#[test]
fn an_abort_without_ids_empties_the_queue() {
    let mut story = Story::serving();
    for name in ["a", "b", "c"] {
        story.program(&[name]);
    }
    assert!(story.program_with(&json!({"needs": {"cpus": 0.5}})).is_empty());
    let told = story.control(MsgType::AbortRequest, &json!({}));
    assert_eq!(told.iter().filter(|line| line.contains("aborted")).count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("withdraw")).count(), 2);
    for msg_id in std::mem::take(&mut story.line) {
        story.step(Event::Withdrawn { msg_id });
    }
    assert_eq!(story.engine.load(), 1);
    story.control(MsgType::AbortRequest, &json!({"msg_ids": 5}));
    assert_eq!(story.reply().1["ename"], json!("ValueError"));
}

#[test]
fn a_program_told_to_stop_is_killed_after_a_grace() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let ids = json!({"msg_ids": [story.sent[0].as_str()], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &ids).contains(&"signal #0: 15".to_owned()));
    let again = story.control(MsgType::AbortRequest, &ids);
    assert!(!again.iter().any(|line| line.starts_with("signal")), "once is enough: {again:?}");
    assert_eq!(story.engine.deadline(), Some(story.now.instant + STOP_GRACE));
    assert_eq!(story.pass(STOP_GRACE), ["signal #0: 9"]);
    assert!(story.pass(STOP_GRACE).is_empty());
    story.ended(0, outcome(None, Some(9)));
    let (_, content, buffers) = story.reply();
    assert_eq!(content["ename"], json!("TaskStopped"));
    assert_eq!((&content["remuda"]["process"]["signal"], buffers.len()), (&json!(9), 3));
}

#[test]
fn a_program_that_runs_for_longer_than_it_may_is_stopped() {
    let mut story = Story::serving();
    let limited = |limit: f64| json!({"run_timeout": limit});
    story.program_with(&limited(1.5));
    story.program_with(&limited(1.5));
    let limit = Duration::from_millis(1500);
    assert_eq!(story.pass(limit), ["signal #0: 15"]);
    assert_eq!(story.pass(STOP_GRACE), ["signal #0: 9"]);
    story.ended(0, outcome(None, Some(9)));
    let (_, content, _) = story.reply();
    assert_eq!(content["ename"], json!("RunTimeout"));
    assert_eq!(content["remuda"]["process"]["stopped"], json!("run_timeout"));
    assert_eq!(story.engine.deadline(), Some(story.now.instant + limit), "the time in the queue does not count");
    story.pass(limit);
    story.ended(1, outcome(Some(0), None));
    assert_eq!(story.reply().1["ename"], json!("RunTimeout"), "whatever its exit code, it is not done");
    for wrong in [0.0, -1.0] {
        story.program_with(&limited(wrong));
        assert!(story.reply().1["evalue"].as_str().unwrap().contains("run_timeout"));
    }
}

#[test]
fn as_many_run_at_once_as_there_is_room_for_in_order_of_arrival() {
    let mut story = Story::with(3, &[("gpu", 1)]);
    let starts = |told: Vec<String>| told.into_iter().filter(|line| line.starts_with("start")).collect::<Vec<_>>();
    assert_eq!(starts(story.program_with(&json!({"needs": {"cpus": 2, "gpu": 1}}))), ["start #0: a"]);
    assert_eq!(starts(story.program_with(&json!({"needs": {"gpu": 1}}))), [""; 0], "the gpu is taken");
    assert_eq!(starts(story.program_with(&json!({}))), [""; 0], "there is room, but it is not its turn");
    assert_eq!(story.engine.load(), 3);
    assert_eq!(starts(story.ended(0, outcome(Some(0), None))), ["start #1: a", "start #2: a"]);
    assert_eq!(starts(story.program_with(&json!({"attempt": 7}))), ["start #3: a"]);
    assert!(story.last.iter().any(|effect| matches!(effect, Effect::Start { attempt: 7, .. })));
    assert_eq!(starts(story.program_with(&json!({}))), [""; 0], "all slots are taken");
    // They end in any order, and each reply is that of its own task.
    for number in [3, 1, 2, 4] {
        let told = story.ended(number, outcome(Some(0), None));
        assert!(told.iter().any(|line| line.contains(&format!("apply_reply of #{number}"))), "{told:?}");
    }
    assert_eq!(story.engine.load(), 0);
}

#[test]
fn what_is_too_much_for_an_engine_is_for_another() {
    let mut story = Story::with(2, &[]);
    for needs in [json!({"cpus": 3}), json!({"gpu": 1}), json!({"label": "big"})] {
        story.program_with(&json!({"needs": needs}));
        let (metadata, content, _) = story.reply();
        assert_eq!(metadata["dependencies_met"], json!(false));
        assert!(content["evalue"].as_str().unwrap().ends_with("engine 3 has cpus=2"), "{content}");
    }
}

#[test]
fn each_of_several_programs_is_stopped_by_itself() {
    let mut story = Story::with(3, &[]);
    story.program_with(&json!({"run_timeout": 1.0}));
    story.program_with(&json!({"run_timeout": 2.0}));
    story.program(&["c"]);
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #0: 15"]);
    let ids = json!({"msg_ids": [story.sent[2].as_str()], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &ids).contains(&"signal #2: 15".to_owned()));
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #1: 15"]);
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #0: 9", "signal #2: 9"]);
}

#[test]
fn parts_of_what_a_program_wrote_are_read_while_it_runs_and_after() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let task = story.sent[0].clone();
    let ask =
        |offset: u64| json!({"msg_id": task.as_str(), "stream": "stdout", "offset": offset, "max_bytes": 1 << 30});
    assert_eq!(story.control(MsgType::OutputRequest, &ask(5)), ["read 0: 5"]);
    let Effect::ReadOutput { part, .. } = &story.last[0] else { panic!("{:?}", story.last) };
    assert_eq!(part.max_bytes, remuda_proto::message::content::MAX_OUTPUT_PART);
    assert_eq!(story.control(MsgType::OutputRequest, &ask(6)), ["read 1: 6"]);
    let part = OutputPart { from: Some(7), bytes: Bytes::from_static(b"part") };
    let read = |number| Event::OutputRead { number, part: Ok(part.clone()) };
    let told = story.step(read(1));
    assert!(told[0].contains("output_reply of #2: ok"), "{told:?}");
    story.ended(0, outcome(Some(0), None));
    story.step(read(0));
    let Effect::Reply { link: Link::Control, body, .. } = &story.last[0] else { panic!("{:?}", story.last) };
    assert_eq!(body.buffer(0).unwrap(), &b"part"[..]);
    let content: Value = serde_json::from_slice(body.content()).unwrap();
    assert_eq!((&content["ended"], &content["offset"]), (&json!(true), &json!(7)));
    let release = json!({"msg_id": task.as_str(), "stream": "stdout", "release": true});
    assert_eq!(story.control(MsgType::OutputRequest, &release)[0], "release #0");
    let wrong = story.control(MsgType::OutputRequest, &json!({"msg_id": 5}));
    assert!(wrong[0].contains("error") || wrong[0].contains("ValueError"), "{wrong:?}");
}

#[test]
fn a_program_that_succeeds_just_before_it_is_stopped_has_succeeded() {
    let mut story = Story::serving();
    story.program(&["a"]);
    story.control(MsgType::AbortRequest, &json!({"remuda": {"stop": true}}));
    story.ended(0, outcome(Some(0), None));
    assert_eq!(story.reply().1["status"], json!("ok"));
    assert_ne!(story.engine.deadline(), Some(story.now.instant + STOP_GRACE), "nothing is left to kill");
}

#[test]
fn a_function_cannot_be_stopped() {
    let mut story = Story::serving();
    story.function("mul");
    let told = story.control(MsgType::AbortRequest, &json!({"remuda": {"stop": true}}));
    assert!(!told.iter().any(|line| line.starts_with("signal")));
}

#[test]
fn a_signal_goes_to_the_program_that_runs() {
    let mut story = Story::serving();
    for (sig, status) in
        [(json!(2), json!("ok")), (json!("SIGUSR1"), json!("error")), (json!("nonsense"), json!("error"))]
    {
        story.control(MsgType::SignalRequest, &json!({"sig": sig}));
        assert_eq!(story.reply().1["status"], status, "{sig}, with nothing that runs");
    }
    story.program(&["a"]);
    let task = story.sent.len() - 1;
    let told = story.control(MsgType::SignalRequest, &json!({"sig": "SIGINT"}));
    assert!(told.contains(&format!("signal #{task}: 2")), "{told:?}");
}

#[test]
fn a_shutdown_is_answered_published_and_obeyed() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let told = story.control(MsgType::ShutdownRequest, &json!({"restart": false}));
    assert_eq!(
        told,
        [
            "engine.3.status status of #1: busy",
            "Control [mux, 0x0001] shutdown_reply of #1: ok",
            "engine.3.status status of #1: idle",
            "engine.3.shutdown shutdown_reply of #1: ok",
            "exit Shutdown",
        ]
    );
    assert!(story.ended(0, outcome(None, Some(9))).is_empty(), "the end of what was killed is no contradiction");
}

#[test]
fn other_control_requests_are_answered() {
    let mut story = Story::serving();
    for (msg_type, status) in [
        ("clear_request", "ok"),
        ("kernel_info_request", "ok"),
        ("debug_request", "error"),
        ("interrupt_request", "error"),
    ] {
        let told = story.control(msg_type.into(), &json!({}));
        assert!(told[1].contains(&msg_type.replace("_request", "_reply")), "{told:?}");
        assert_eq!(story.reply().1["status"], json!(status), "{msg_type}");
    }
}

#[test]
fn an_engine_whose_controller_falls_silent_leaves() {
    let mut story = Story::serving();
    assert!(story.pass(Duration::from_secs(74)).is_empty());
    story.step(Event::Ping);
    assert!(story.pass(Duration::from_secs(74)).is_empty());
    assert_eq!(
        story.pass(Duration::from_secs(1)),
        [r#"hub unregistration_request: {"id":3}"#, "exit ControllerLost { silence: 75s }"]
    );
}

#[test]
fn an_absurd_heartbeat_is_no_danger() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    let reply = json!({"id": 3, "status": "ok", "hb_period": u64::MAX});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
    story.step(Event::Registered(body));
    assert!(story.pass(Duration::from_secs(1_000_000)).is_empty());
}

#[test]
fn a_stop_says_goodbye_to_the_hub() {
    let mut story = Story::serving();
    assert_eq!(story.step(Event::Stop), [r#"hub unregistration_request: {"id":3}"#, "exit Stopped"]);
    assert!(story.step(Event::Stop).is_empty());
    assert_eq!(Story::new(Packer::Json).step(Event::Stop), ["exit Stopped"]);
}

#[test]
fn a_null_engine_answers_none_and_publishes_nothing() {
    let mut story = Story::serving();
    story.engine.null = true;
    assert_eq!(story.shell(MsgType::ApplyRequest, &json!({}), &[]), ["Shell [mux, 0x0001] apply_reply of #0: ok"]);
    assert_eq!(story.reply().2, [pickle::NONE]);
}

#[test]
fn msgpack_does_as_well_as_json() {
    let mut story = Story::new(Packer::Msgpack);
    story.serve();
    story.program(&["a"]);
    story.ended(0, outcome(Some(3), None));
    let (metadata, content, _) = story.reply();
    assert_eq!((&content["ename"], &metadata["status"]), (&json!("ProcessFailed"), &json!("error")));
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(3));
    story.function("mul");
    story.done(1, Outcome::Failed(RemoteError::new("FunctionError", "no")));
    assert_eq!(story.reply().1["engine_info"]["method"], json!("apply"));
    story.control(MsgType::ShutdownRequest, &json!({}));
    assert_eq!(story.reply().1, json!({"status": "ok", "restart": false}));
}

#[test]
fn the_routing_of_a_broadcast_is_echoed_whole() {
    let mut story = Story::serving();
    let body = story.message(MsgType::ApplyRequest, &json!({}), &json!({}), &[]);
    let idents: Vec<Identity> = ["leaf", "root", "client"].map(|text| Identity::from(text.as_bytes())).into();
    story.step(Event::Shell(Frames::new(idents.clone(), body)));
    let echoed = story.last.iter().find_map(|effect| match effect {
        Effect::Reply { idents, .. } => Some(idents.to_vec()),
        _ => None,
    });
    assert_eq!(echoed, Some(idents));
}

impl Story {
    /// A controller that takes over asks what the engine has, and about these requests.
    fn probe(&mut self, assigned: &[&MsgId]) -> Vec<String> {
        self.shell(MsgType::KernelInfoRequest, &json!({"remuda": {"assigned": assigned}}), &[])
    }

    /// What the engine says that it has.
    fn has(&self) -> Vec<String> {
        let Some(Effect::Reply { body, .. }) = self.last.last() else { panic!("{:?}", self.last) };
        let content: Value = self.peer.packer().unpack(body.content()).unwrap();
        assert_eq!(content["status"], "ok");
        let has: Vec<MsgId> = serde_json::from_value(content["remuda"]["has"].clone()).unwrap();
        has.iter().map(|msg_id| self.name(msg_id)).collect()
    }

    fn value(&mut self, task: usize) -> Vec<String> {
        let outcome = Outcome::Value { pickle: Bytes::from_static(b"p"), msgpack: Bytes::from_static(b"m") };
        self.done(task, outcome)
    }
}

#[test]
fn a_probe_is_answered_at_once_with_the_replies_that_are_held_and_what_is_still_to_come() {
    let mut story = Story::serving();
    story.function("mul");
    let sent = story.value(0);
    story.program(&["sleep"]);
    story.function("mul");
    let (done, other) = (story.sent[0].clone(), MsgId::from("never came"));
    let told = story.probe(&[&done, &other]);
    let reply = sent.iter().find(|line| line.starts_with("Shell")).unwrap();
    assert_eq!((told.len(), &told[0]), (2, reply), "{told:?}");
    assert_eq!(story.has(), ["#1", "#2"]);
    // What is not asked for is not sent.
    assert_eq!(story.probe(&[]).len(), 1);
}

#[test]
fn a_request_that_it_has_or_had_is_not_run_again() {
    let mut story = Story::serving();
    let content = json!({"remuda": {"function": "mul"}});
    let first = story.message(MsgType::ApplyRequest, &json!({}), &content, &[]);
    let again = |story: &Story, mark: u64| {
        let metadata = story.peer.packer().pack(&json!({"remuda": {"sent_again": mark}})).unwrap();
        let body = story.peer.sign_parts([first.header(), first.parent_header(), &metadata, first.content()], []);
        Event::Shell(frames(body))
    };
    let waits = story.message(MsgType::ApplyRequest, &json!({}), &content, &[]);
    story.step(Event::Shell(frames(first.clone())));
    story.step(Event::Shell(frames(waits)));
    let event = again(&story, 1);
    assert!(story.step(event).is_empty(), "it runs");
    let sent = story.value(0);
    let reply = sent.iter().find(|line| line.starts_with("Shell")).cloned();
    let event = again(&story, 2);
    assert_eq!(story.step(event), Vec::from_iter(reply));
    let metadata = story.peer.packer().pack(&json!({"remuda": {"attempt": 2}})).unwrap();
    let body = story.peer.sign_parts([first.header(), first.parent_header(), &metadata, first.content()], []);
    story.step(Event::Shell(frames(body)));
    story.value(1);
    assert_eq!(story.engine.load(), 1, "another attempt is another run");
    let msg_id = story.sent[0].clone();
    let told = story.probe(&[&msg_id]);
    assert_eq!(told.len(), 1, "the reply to the attempt before says nothing of the one that runs: {told:?}");
    assert_eq!(story.has(), ["#0"]);
    story.value(0);
    story.now.instant = story.now.instant + HELD_FOR;
    let event = again(&story, 3);
    assert!(story.step(event).iter().any(|line| line == "start #0: mul"), "it is forgotten by now");
}

#[test]
fn an_engine_that_answers_at_once_holds_nothing() {
    let mut story = Story::new(Packer::Json);
    story.engine.null = true;
    story.serve();
    story.function("mul");
    let done = story.sent[0].clone();
    assert_eq!(story.probe(&[&done]).len(), 1);
}

#[test]
fn a_task_that_wants_no_word_of_its_begin_and_end_has_none() {
    let mut story = Story::serving();
    let told = story.program_with(&json!({"quiet": true}));
    assert_eq!(told, ["start #0: a"]);
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("apply_reply of #0"));
}
