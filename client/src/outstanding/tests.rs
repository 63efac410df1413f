use remuda_proto::message::native::{ApplyContent, NativeTask};
use remuda_proto::{Date, Header, Key, Packer, VerifyError};
use serde_json::Value;

use super::*;

fn now(seconds: u64) -> Now {
    Now { instant: Instant(seconds * 1_000_000_000), date: Date(0) }
}

/// A client, and a controller that shares its key.
struct World {
    client: Outstanding,
    controller: Session,
    /// What was sent and not yet looked at.
    sent: Vec<(Channel, Frames)>,
    at: u64,
}

impl World {
    fn new() -> Self {
        let session = |id: &str| Session::new(id.into(), "u", Key::new("k"), Packer::Json, 1);
        Self {
            client: Outstanding::new(session("client"), 20),
            controller: session("controller"),
            sent: Vec::new(),
            at: 1,
        }
    }

    /// One that knows engines 0 and 1, of uuids `e0` and `e1`.
    fn with_engines() -> Self {
        let mut world = Self::new();
        for id in 0..2 {
            let content = json!({"id": id, "uuid": format!("e{id}")});
            let effects = world.receive(Channel::Notification, "registration_notification", None, &json!({}), &content);
            assert_eq!(effects, [Effect::EngineJoined(engine(id))]);
        }
        world
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.client.handle(now(self.at), event, &mut out);
        self.settle(out)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        self.at += seconds;
        self.client.on_deadline(now(self.at), &mut out);
        self.settle(out)
    }

    /// Puts aside what was sent, and returns the rest.
    fn settle(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        self.client.check();
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { channel, frames } => self.sent.push((channel, frames)),
                other => rest.push(other),
            }
        }
        rest
    }

    fn frames(&mut self, msg_type: &str, parent: Option<&str>, metadata: &Value, content: &Value) -> Frames {
        let parent = parent.map(|id| json!({"msg_id": id, "msg_type": "x", "session": "client"}).to_string());
        let parent = parent.as_deref().map(str::as_bytes);
        let message = self.controller.message(Date(0), msg_type.into(), parent, metadata, content, &[]);
        Frames::new([], message.unwrap().1)
    }

    fn receive(
        &mut self,
        channel: Channel,
        msg_type: &str,
        parent: Option<&str>,
        metadata: &Value,
        content: &Value,
    ) -> Vec<Effect> {
        let frames = self.frames(msg_type, parent, metadata, content);
        self.apply(Event::Message { channel, frames })
    }

    fn submit(&mut self, msg_id: &str, engine: Option<&str>) -> Vec<Effect> {
        let route = match engine {
            Some(engine) => Route::Direct { engine: engine.into(), label: None, run_timeout: None },
            None => Route::Balanced(Box::default()),
        };
        let content = ApplyContent { remuda: Some(NativeTask::Function("mul".into())) };
        let work = Work::Apply { content, buffers: vec![Bytes::from_static(b"\x06")] };
        self.apply(Event::Submit { msg_id: msg_id.into(), route, work })
    }

    fn reply(&mut self, channel: Channel, to: &str) -> Vec<Effect> {
        self.receive(
            channel,
            "apply_reply",
            Some(to),
            &json!({"status": "ok", "engine": "e0"}),
            &json!({"status": "ok"}),
        )
    }

    fn output(&mut self, of: &str, msg_type: &str, content: &Value) -> Vec<Effect> {
        self.receive(Channel::Iopub, msg_type, Some(of), &json!({"engine": "e0"}), content)
    }

    fn idle(&mut self, of: &str) -> Vec<Effect> {
        self.output(of, "status", &json!({"execution_state": "idle"}))
    }

    fn header(frames: &Frames) -> Header {
        serde_json::from_slice(frames.body.header()).unwrap()
    }
}

fn engine(id: u32) -> Engine {
    Engine { id: Some(EngineId(id)), uuid: format!("e{id}").into() }
}

fn ended(msg_id: &str, complete: bool, dropped_bytes: u64) -> Effect {
    Effect::OutputEnded { msg_id: msg_id.into(), complete, dropped_bytes }
}

fn resolved(effect: &Effect) -> (&str, &Outcome) {
    let Effect::Resolve { msg_id, outcome } = effect else { panic!("{effect:?}") };
    (msg_id.as_str(), outcome)
}

#[test]
fn a_balanced_task_goes_out_signed_and_is_resolved_by_its_reply() {
    let mut world = World::new();
    assert_eq!(world.submit("t0", None), []);
    let (channel, frames) = world.sent.pop().unwrap();
    assert_eq!((channel, frames.idents.len()), (Channel::Task, 0));
    assert_eq!(world.controller.key().verify(&frames.body), Ok(()));
    let header = World::header(&frames);
    assert_eq!(
        (header.msg_id.as_str(), header.msg_type, header.session.as_str()),
        ("t0", MsgType::ApplyRequest, "client")
    );
    assert_eq!(frames.body.content(), br#"{"remuda":{"function":"mul"}}"#);
    assert_eq!(frames.body.buffer(0).unwrap(), &b"\x06"[..]);
    let effects = world.reply(Channel::Task, "t0");
    let ("t0", Outcome::Reply(reply)) = resolved(&effects[0]) else { panic!("{effects:?}") };
    assert_eq!((reply.status, reply.engine.as_ref().unwrap().as_str()), (Status::Ok, "e0"));
    assert_eq!(effects.len(), 1, "its output has not ended");
    assert_eq!(world.idle("t0"), [ended("t0", true, 0)]);
    assert!(world.client.outputs.is_empty() && world.client.timers.is_empty());
}

#[test]
fn a_direct_task_names_its_engine_and_fails_when_that_leaves() {
    let mut world = World::with_engines();
    assert_eq!(world.submit("t0", Some("e1")), []);
    let (channel, frames) = world.sent.pop().unwrap();
    assert_eq!((channel, frames.idents[0].as_bytes()), (Channel::Mux, &b"e1"[..]));
    assert_eq!(frames.body.metadata(), br#"{"label":null}"#);
    world.submit("t1", None);
    let left = json!({"id": 1, "uuid": "e1"});
    let effects = world.receive(Channel::Notification, "unregistration_notification", None, &json!({}), &left);
    let lost = Effect::Resolve { msg_id: "t0".into(), outcome: Outcome::EngineLost(engine(1)) };
    assert_eq!(effects, [Effect::EngineLeft(engine(1)), lost, ended("t0", true, 0)]);
    // Its late reply is nobody's.
    let late = world.reply(Channel::Mux, "t0");
    assert!(matches!(&late[..], [Effect::Refused { refusal: Refusal::Unexpected(_), .. }]), "{late:?}");
    assert_eq!(world.client.refused()["unexpected"], 1);
    assert_eq!(world.client.len(), 1);
}

#[test]
fn a_task_for_an_engine_that_is_not_there_is_not_sent() {
    let mut world = World::with_engines();
    let effects = world.submit("t0", Some("e7"));
    assert!(matches!(resolved(&effects[0]), ("t0", Outcome::EngineLost(_))));
    assert_eq!((effects.len(), world.sent.len(), world.client.len()), (2, 0, 0));
}

#[test]
fn a_reply_counts_once_and_only_where_it_belongs() {
    let mut world = World::with_engines();
    world.submit("t0", Some("e0"));
    for (channel, msg_type) in
        [(Channel::Task, "apply_reply"), (Channel::Query, "apply_reply"), (Channel::Mux, "status")]
    {
        let effects = world.receive(channel, msg_type, Some("t0"), &json!({}), &json!({"status": "ok"}));
        assert!(matches!(&effects[..], [Effect::Refused { .. }]), "{effects:?}");
    }
    assert_eq!(world.reply(Channel::Mux, "t0").len(), 1);
    assert!(matches!(&world.reply(Channel::Mux, "t0")[..], [Effect::Refused { .. }]));
}

#[test]
fn what_is_not_signed_has_no_effect_and_neither_has_a_replay() {
    let mut world = World::new();
    world.submit("t0", None);
    let mut stranger = Session::new("x".into(), "u", Key::new("other"), Packer::Json, 1);
    let parent = br#"{"msg_id":"t0"}"#;
    let ok = json!({"status": "ok"});
    let (_, body) = stranger.message(Date(0), MsgType::ApplyReply, Some(parent), &ok, &ok, &[]).unwrap();
    let effects = world.apply(Event::Message { channel: Channel::Task, frames: Frames::new([], body) });
    assert!(matches!(&effects[..], [Effect::Refused { refusal: Refusal::Verify(VerifyError::Invalid), .. }]));
    world.reply(Channel::Task, "t0");
    let stream = world.frames("stream", Some("t0"), &json!({}), &json!({"name": "stdout", "text": "a"}));
    let event = Event::Message { channel: Channel::Iopub, frames: stream };
    assert!(matches!(&world.apply(event.clone())[..], [Effect::Output { .. }]));
    assert!(matches!(
        &world.apply(event)[..],
        [Effect::Refused { refusal: Refusal::Verify(VerifyError::Duplicate), .. }]
    ));
}

#[test]
fn a_reply_that_makes_no_sense_resolves_all_the_same() {
    let mut world = World::new();
    for (msg_id, metadata, content) in [
        ("t0", json!({}), json!({})),
        ("t1", json!({"status": "resubmitted"}), json!({})),
        ("t2", json!("x"), json!({"status": "ok"})),
    ] {
        world.submit(msg_id, None);
        let effects = world.receive(Channel::Task, "apply_reply", Some(msg_id), &metadata, &content);
        assert!(matches!(resolved(&effects[0]), (_, Outcome::Unreadable { .. })), "{effects:?}");
        assert_eq!(effects[1], ended(msg_id, true, 0));
    }
}

#[test]
fn output_is_passed_on_as_it_comes_and_ends_with_reply_and_idle_in_either_order() {
    let mut world = World::new();
    world.submit("t0", None);
    let text = |kind| Effect::Output {
        msg_id: "t0".into(),
        piece: Piece { received: Date(0), engine: Some("controller".into()), kind },
    };
    let out = world.output("t0", "stream", &json!({"name": "stdout", "text": "hi"}));
    assert_eq!(out, [text(PieceKind::Stdout("hi".into()))]);
    let err = world.output("t0", "stream", &json!({"name": "stderr", "text": "no"}));
    assert_eq!(err, [text(PieceKind::Stderr("no".into()))]);
    assert_eq!(world.idle("t0"), []);
    let effects = world.reply(Channel::Task, "t0");
    assert_eq!(effects[1..], [ended("t0", true, 0)]);
    let late = world.output("t0", "stream", &json!({"name": "stdout", "text": "late"}));
    assert!(matches!(&late[..], [Effect::Refused { refusal: Refusal::Unexpected(_), .. }]));
}

#[test]
fn output_that_is_lost_keeps_nobody_waiting() {
    let mut world = World::new();
    world.submit("t0", None);
    world.reply(Channel::Task, "t0");
    assert_eq!(world.client.deadline(), Some(now(1).instant + OUTPUT_WAIT));
    assert_eq!(world.wait(4), []);
    assert_eq!(world.wait(1), [ended("t0", false, 0)]);
}

#[test]
fn output_beyond_the_limit_is_counted_and_dropped() {
    let mut world = World::new();
    world.submit("t0", None);
    // 18 bytes; of the next letters, of two bytes each, only one is within 20.
    world.output("t0", "stream", &json!({"name": "stdout", "text": "x".repeat(17)}));
    let effects = world.output("t0", "stream", &json!({"name": "stdout", "text": "éé"}));
    let piece = Piece { received: Date(0), engine: Some("controller".into()), kind: PieceKind::Stdout("é".into()) };
    assert_eq!(effects, [Effect::Output { msg_id: "t0".into(), piece }]);
    assert_eq!(world.output("t0", "execute_result", &json!({"data": {"text/plain": "5"}})), []);
    world.idle("t0");
    let Effect::OutputEnded { dropped_bytes, .. } = world.reply(Channel::Task, "t0")[1] else { panic!() };
    assert!(dropped_bytes > 2, "{dropped_bytes}");
}

#[test]
fn the_idle_of_a_failed_attempt_does_not_end_the_output_of_the_next() {
    let mut world = World::new();
    world.submit("t0", None);
    let idle = json!({"execution_state": "idle"});
    world.receive(Channel::Iopub, "status", Some("t0"), &json!({"engine": "e1"}), &idle);
    assert_eq!(world.reply(Channel::Task, "t0").len(), 1);
    assert!(matches!(
        &world.output("t0", "stream", &json!({"name": "stdout", "text": "x"}))[..],
        [Effect::Output { .. }]
    ));
    assert_eq!(world.idle("t0"), [ended("t0", true, 0)]);
}

#[test]
fn the_output_of_others_is_passed_over() {
    let mut world = World::new();
    let content = json!({"name": "stdout", "text": "x"});
    let parent = json!({"msg_id": "t0", "session": "somebody"}).to_string();
    let mut stranger = Session::new("x".into(), "u", Key::new("other"), Packer::Json, 1);
    for parent in [Some(parent.as_bytes()), None] {
        let (_, body) = stranger.message(Date(0), MsgType::Stream, parent, &json!({}), &content, &[]).unwrap();
        assert_eq!(world.apply(Event::Message { channel: Channel::Iopub, frames: Frames::new([], body) }), []);
    }
}

#[test]
fn a_query_is_answered_or_given_up() {
    let mut world = World::new();
    let ask = |msg_id: &str| Event::Query {
        msg_id: msg_id.into(),
        msg_type: MsgType::QueueRequest,
        content: json!({"targets": null}),
        timeout: Some(Duration::from_secs(3)),
    };
    world.apply(ask("q0"));
    let effects = world.receive(Channel::Query, "hub_error", Some("q0"), &json!({}), &json!({"status": "error"}));
    assert!(matches!(resolved(&effects[0]), ("q0", Outcome::Reply(_))));
    world.apply(ask("q1"));
    let effects = world.wait(3);
    assert_eq!(resolved(&effects[0]), ("q1", &Outcome::NoAnswer { waited: Duration::from_secs(3) }));
}

#[test]
fn the_list_of_engines_is_taken_over_and_asked_for_again() {
    let mut world = World::with_engines();
    world.submit("t0", Some("e1"));
    let connect = |msg_id: &str| Event::Query {
        msg_id: msg_id.into(),
        msg_type: MsgType::ConnectionRequest,
        content: json!({}),
        timeout: None,
    };
    world.at += 1;
    world.apply(connect("q0"));
    // Engine 3 registers while the request is under way, and its notification overtakes the reply.
    let joined = json!({"id": 3, "uuid": "e3"});
    world.receive(Channel::Notification, "registration_notification", None, &json!({}), &joined);
    let engines = json!({"status": "ok", "engines": {"0": "e0", "2": "e2"}});
    let effects = world.receive(Channel::Query, "connection_reply", Some("q0"), &json!({}), &engines);
    assert!(matches!(resolved(&effects[1]), ("t0", Outcome::EngineLost(_))));
    assert_eq!(effects[0], Effect::EngineLeft(engine(1)));
    assert_eq!(effects[3], Effect::EngineJoined(engine(2)));
    assert_eq!(resolved(&effects[4]).0, "q0");
    // A second later it is asked for again, without anybody's asking, and again after that.
    world.sent.clear();
    for seconds in [1, 10] {
        assert_eq!(world.wait(seconds), []);
        let (Channel::Query, frames) = world.sent.pop().unwrap() else { panic!() };
        let id = World::header(&frames).msg_id;
        let engines = json!({"status": "ok", "engines": {"0": "e0", "2": "e2", "3": "e3"}});
        assert_eq!(world.receive(Channel::Query, "connection_reply", Some(id.as_str()), &json!({}), &engines), []);
    }
}

#[test]
fn a_controller_that_falls_silent_is_told_once_and_so_is_its_return() {
    let mut world = World::new();
    let msg_type = MsgType::ConnectionRequest;
    world.apply(Event::Query { msg_id: "q0".into(), msg_type, content: json!({}), timeout: None });
    let engines = json!({"status": "ok", "engines": {}});
    world.receive(Channel::Query, "connection_reply", Some("q0"), &json!({}), &engines);
    assert_eq!(world.wait(1), []);
    assert_eq!(world.wait(10), [Effect::Answering(false)]);
    assert_eq!(world.wait(10), []);
    assert_eq!(world.wait(10), []);
    world.sent.clear();
    world.wait(10);
    let id = World::header(&world.sent.pop().unwrap().1).msg_id;
    let effects = world.receive(Channel::Query, "connection_reply", Some(id.as_str()), &json!({}), &engines);
    assert_eq!(effects, [Effect::Answering(true)]);
}

#[test]
fn an_engine_that_comes_back_under_another_id_has_left_before() {
    let mut world = World::with_engines();
    world.submit("t0", Some("e0"));
    let content = json!({"id": 1, "uuid": "e0"});
    let effects = world.receive(Channel::Notification, "registration_notification", None, &json!({}), &content);
    assert_eq!(effects[..2], [Effect::EngineLeft(engine(1)), Effect::EngineLeft(engine(0))]);
    assert!(matches!(resolved(&effects[2]), ("t0", Outcome::EngineLost(_))));
    let back = Engine { id: Some(EngineId(1)), uuid: "e0".into() };
    assert_eq!(effects.last(), Some(&Effect::EngineJoined(back)));
}

#[test]
fn a_shutdown_ends_all_that_is_outstanding() {
    let mut world = World::with_engines();
    world.submit("t0", Some("e0"));
    world.submit("t1", None);
    let effects =
        world.receive(Channel::Notification, "shutdown_notification", None, &json!({}), &json!({"status": "ok"}));
    let resolved = effects.iter().filter(|effect| matches!(effect, Effect::Resolve { outcome: Outcome::Shutdown, .. }));
    assert_eq!(resolved.count(), 2);
    assert_eq!(effects.last(), Some(&Effect::Shutdown));
    assert!(world.client.is_empty());
}

#[test]
fn a_control_request_is_answered_and_its_busy_and_idle_are_no_output() {
    let mut world = World::with_engines();
    let event = Event::Control {
        msg_id: "c0".into(),
        engine: "e0".into(),
        msg_type: MsgType::AbortRequest,
        content: json!({"msg_ids": []}),
        timeout: None,
    };
    world.apply(event);
    assert_eq!(world.sent[0].1.idents[0].as_bytes(), b"e0");
    assert_eq!(world.idle("c0"), []);
    // The type of a reply to a control request is not looked at (wire reference, 8.3).
    let effects = world.receive(Channel::Control, "_request", Some("c0"), &json!({}), &json!({"status": "ok"}));
    assert!(matches!(resolved(&effects[0]), ("c0", Outcome::Reply(_))));
    assert_eq!(effects.len(), 1);
}

#[test]
#[should_panic(expected = "two requests are named `t0`")]
fn two_requests_of_one_name_are_our_own_contradiction() {
    let mut world = World::new();
    world.submit("t0", None);
    world.submit("t0", None);
}

#[test]
fn ids_of_the_application_are_not_those_of_the_session() {
    let mut session = Session::new("s".into(), "u", Key::new(""), Packer::Json, 7);
    assert_eq!(Names::new(&session, 7).msg_id(0).as_str(), "s_7_t0");
    assert_eq!(session.header(Date(0), MsgType::Status).msg_id.as_str(), "s_7_0");
}

mod broadcast;
mod recheck;
mod resend;

fn raw(channel: Channel, msg_type: &str) -> Raw {
    Raw {
        channel,
        engine: None,
        parts: Vec::new(),
        coalesce: false,
        msg_type: msg_type.into(),
        metadata: br#"{"label":7}"#.to_vec(),
        content: b"{}".to_vec(),
        buffers: vec![Bytes::from_static(b"x")],
        is_answered: true,
    }
}

fn send_raw(world: &mut World, msg_id: &str, raw: Raw) -> Vec<Effect> {
    world.apply(Event::Raw { msg_id: msg_id.into(), raw: Box::new(raw) })
}

#[test]
fn what_is_packed_already_goes_out_as_it_is_and_its_output_comes_back_so() {
    let mut world = World::with_engines();
    let direct = Raw { engine: Some("e0".into()), ..raw(Channel::Mux, "apply_request") };
    assert_eq!(send_raw(&mut world, "r0", direct), []);
    let (channel, frames) = world.sent.pop().unwrap();
    assert_eq!((channel, frames.idents[0].as_bytes()), (Channel::Mux, &b"e0"[..]));
    assert_eq!(world.controller.key().verify(&frames.body), Ok(()));
    assert_eq!((frames.body.metadata(), frames.body.content()), (&br#"{"label":7}"#[..], &b"{}"[..]));
    assert_eq!(frames.body.buffer(0).unwrap(), &b"x"[..]);
    // More than the limit for what is read here: who reads it himself has it all.
    let text = json!({"name": "stdout", "text": "more than twenty bytes of text"});
    let effects = world.output("r0", "stream", &text);
    let [Effect::Published { msg_id, msg_type: MsgType::Stream, body }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((msg_id.as_str(), body.content()), ("r0", text.to_string().as_bytes()));
    let effects = world.reply(Channel::Mux, "r0");
    assert!(matches!(resolved(&effects[0]), ("r0", Outcome::Reply(_))), "{effects:?}");
    let effects = world.idle("r0");
    assert!(matches!(&effects[0], Effect::Published { msg_type: MsgType::Status, .. }), "{effects:?}");
    assert_eq!(effects[1..], [ended("r0", true, 0)]);
    assert!(world.client.is_empty() && world.client.outputs.is_empty());
}

#[test]
fn what_has_no_answer_is_sent_and_forgotten() {
    let mut world = World::with_engines();
    let comm = Raw { engine: Some("e1".into()), is_answered: false, ..raw(Channel::Mux, "comm_msg") };
    assert_eq!(send_raw(&mut world, "r0", comm), []);
    assert_eq!((world.sent.len(), world.client.len()), (1, 0));
}

#[test]
fn a_raw_list_of_engines_is_taken_over() {
    let mut world = World::new();
    assert_eq!(send_raw(&mut world, "r0", raw(Channel::Query, "connection_request")), []);
    let content = json!({"status": "ok", "engines": {"0": "e0"}});
    let effects = world.receive(Channel::Query, "connection_reply", Some("r0"), &json!({}), &content);
    assert_eq!(effects[0], Effect::EngineJoined(engine(0)));
    assert_eq!(resolved(&effects[1]).0, "r0");
}

#[test]
fn each_part_of_a_raw_broadcast_has_its_answer_or_all_have_one() {
    for coalesce in [false, true] {
        let mut world = World::with_engines();
        let parts = vec!["e0".into(), "e1".into()];
        assert_eq!(send_raw(&mut world, "b", Raw { parts, coalesce, ..raw(Channel::Broadcast, "apply_request") }), []);
        assert_eq!((world.sent.len(), world.client.len()), (1, 2));
        let metadata = if coalesce {
            json!({"status": "ok", "broadcast_targets": [["e0", 0], ["e1", 1]]})
        } else {
            json!({"status": "ok", "engine": "e0"})
        };
        let effects =
            world.receive(Channel::Broadcast, "apply_reply", Some("b_e0"), &metadata, &json!({"status": "ok"}));
        let mut told: Vec<_> = effects.iter().map(|effect| resolved(effect).0).collect();
        told.sort_unstable();
        assert_eq!(told, if coalesce { vec!["b_e0", "b_e1"] } else { vec!["b_e0"] });
    }
}

#[test]
fn a_raw_broadcast_to_an_engine_that_is_not_there_fails_for_that_or_for_all() {
    for coalesce in [false, true] {
        let mut world = World::with_engines();
        let parts = vec!["e0".into(), "gone".into()];
        let effects = send_raw(&mut world, "b", Raw { parts, coalesce, ..raw(Channel::Broadcast, "apply_request") });
        let lost = effects.iter().filter(|effect| matches!(effect, Effect::Resolve { .. })).count();
        assert_eq!((lost, world.sent.len()), if coalesce { (2, 0) } else { (1, 1) });
    }
}
