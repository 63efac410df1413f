//! One message for several engines.

use super::*;

impl World {
    fn with_many(engines: u32) -> Self {
        let mut world = Self::new();
        for id in 0..engines {
            let content = json!({"id": id, "uuid": format!("e{id}")});
            world.receive(Channel::Notification, "registration_notification", None, &json!({}), &content);
        }
        world
    }

    fn broadcast(&mut self, engines: u32, coalesce: bool, argument: Bytes) -> Vec<Effect> {
        let targets = (0..engines).map(|id| (format!("e{id}").into(), EngineId(id))).collect();
        let (label, run_timeout) = (Some("l".into()), Some(Duration::from_secs(2)));
        let content = ApplyContent { remuda: Some(NativeTask::Function("mul".into())) };
        self.apply(Event::Broadcast {
            msg_id: "b0".into(),
            broadcast: Broadcast { targets, coalesce, label, run_timeout },
            work: Work::Apply { content, buffers: vec![argument] },
        })
    }

    /// A broadcast to both of two engines, sent.
    fn with_both(coalesce: bool) -> Self {
        let mut world = Self::with_engines();
        assert_eq!(world.broadcast(2, coalesce, Bytes::new()), []);
        assert_eq!(world.sent.len(), 1);
        world
    }

    /// A reply to `parent`, with these buffers.
    fn buffers(&mut self, parent: &str, metadata: &Value, content: &Value, buffers: &[&'static [u8]]) -> Vec<Effect> {
        let parent = json!({"msg_id": parent, "session": "client"}).to_string();
        let buffers: Vec<Bytes> = buffers.iter().map(|buffer| Bytes::from_static(buffer)).collect();
        let (date, msg_type) = (Date(0), MsgType::ApplyReply);
        let message = self.controller.message(date, msg_type, Some(parent.as_bytes()), metadata, content, &buffers);
        self.apply(Event::Message { channel: Channel::Broadcast, frames: Frames::new([], message.unwrap().1) })
    }

    fn coalesced(&mut self, targets: &Value, content: &Value, buffers: &[&'static [u8]]) -> Vec<Effect> {
        let metadata = json!({"status": content["status"], "engine": "e1", "is_coalescing": true,
            "original_msg_id": "b0", "broadcast_targets": targets});
        self.buffers("b0_e1", &metadata, content, buffers)
    }

    fn left(&mut self, id: u32) -> Vec<Effect> {
        let left = json!({"id": id, "uuid": format!("e{id}")});
        self.receive(Channel::Notification, "unregistration_notification", None, &json!({}), &left)
    }
}

/// Each part that was resolved, the engine that is said to have answered, and its buffers.
fn answers(effects: &[Effect]) -> Vec<(&str, &str, Vec<Vec<u8>>)> {
    let answer = |effect| match resolved(effect) {
        (part, Outcome::Reply(reply)) => {
            let buffers = reply.body.buffers().map(<[u8]>::to_vec).collect();
            (part, reply.engine.as_ref().unwrap().as_str(), buffers)
        }
        other => panic!("{other:?}"),
    };
    effects.iter().map(answer).collect()
}

fn lost(part: &str, engine: Engine) -> [Effect; 2] {
    [Effect::Resolve { msg_id: part.into(), outcome: Outcome::EngineLost(engine) }, ended(part, true, 0)]
}

fn ok() -> Value {
    json!({"status": "ok"})
}

#[test]
fn a_broadcast_to_many_engines_is_one_message_that_holds_the_argument_once() {
    let mut world = World::with_many(16);
    let argument = Bytes::from(vec![7; 100_000]);
    assert_eq!(world.broadcast(16, false, argument.clone()), []);
    assert_eq!(world.client.len(), 16);
    let (channel, frames) = world.sent.pop().unwrap();
    assert!(world.sent.is_empty());
    assert_eq!((channel, frames.idents.len(), frames.body.buffer_count()), (Channel::Broadcast, 0, 1));
    assert!(frames.body.size_bytes() < argument.len() + 2000, "{} bytes", frames.body.size_bytes());
    assert_eq!(world.controller.key().verify(&frames.body), Ok(()));
    assert_eq!(World::header(&frames).msg_id.as_str(), "b0");
    let metadata: Value = serde_json::from_slice(frames.body.metadata()).unwrap();
    let targets: Vec<Value> = (0..16).map(|id| json!([format!("e{id}"), id])).collect();
    let expected = json!({"targets": targets, "is_broadcast": true, "is_coalescing": false, "label": "l",
        "remuda": {"run_timeout": 2.0}});
    assert_eq!(metadata, expected);
}

#[test]
fn each_engine_answers_for_itself_and_so_does_its_output() {
    let mut world = World::with_both(false);
    let written = world.output("b0_e0", "stream", &json!({"name": "stdout", "text": "hi"}));
    assert!(matches!(&written[..], [Effect::Output { msg_id, .. }] if msg_id.as_str() == "b0_e0"), "{written:?}");
    let effects = world.reply(Channel::Broadcast, "b0_e0");
    assert_eq!((resolved(&effects[0]).0, effects.len()), ("b0_e0", 1), "its output has not ended");
    assert_eq!(world.idle("b0_e0"), [ended("b0_e0", true, 0)]);
    assert_eq!(world.left(1)[1..], lost("b0_e1", engine(1)));
    assert!(world.client.is_empty() && world.client.broadcasts.is_empty());
    let late = world.reply(Channel::Broadcast, "b0_e1");
    assert!(matches!(&late[..], [Effect::Refused { refusal: Refusal::Unexpected(_), .. }]), "{late:?}");
}

#[test]
fn an_engine_that_is_not_there_fails_its_part_and_keeps_a_coalesced_broadcast_from_being_sent() {
    let e2 = || Engine { id: None, uuid: "e2".into() };
    let mut world = World::with_engines();
    assert_eq!(world.broadcast(3, false, Bytes::new()), lost("b0_e2", e2()));
    let (_, frames) = world.sent.pop().unwrap();
    let metadata: Value = serde_json::from_slice(frames.body.metadata()).unwrap();
    assert_eq!((world.client.len(), &metadata["targets"]), (2, &json!([["e0", 0], ["e1", 1]])));
    let mut world = World::with_engines();
    let mut effects = world.broadcast(3, true, Bytes::new());
    effects.sort_by_key(|effect| format!("{effect:?}").contains("Ended"));
    let parts: Vec<_> = effects[..3].iter().map(|effect| resolved(effect).1).collect();
    assert_eq!(parts, [&Outcome::EngineLost(e2()); 3]);
    assert!(world.sent.is_empty() && world.client.is_empty());
}

#[test]
fn a_coalesced_reply_is_divided_by_the_engines_that_it_names() {
    // Leaves answer in the order of the tree; one leaf alone names no ids.
    for targets in [json!([["e1", 1], ["e0", 0]]), json!(["e1", "e0"])] {
        let mut world = World::with_both(true);
        let effects = world.coalesced(&targets, &ok(), &[b"one", b"zero"]);
        let expected = [("b0_e0", "e0", vec![b"zero".to_vec()]), ("b0_e1", "e1", vec![b"one".to_vec()])];
        assert_eq!(answers(&effects), expected);
        let idle = json!({"execution_state": "idle"});
        let effects = world.receive(Channel::Iopub, "status", Some("b0_e1"), &json!({"engine": "e1"}), &idle);
        assert_eq!(effects, [ended("b0_e1", true, 0)]);
        assert_eq!(world.idle("b0_e0"), [ended("b0_e0", true, 0)]);
        assert!(world.client.broadcasts.is_empty());
    }
    let mut world = World::with_both(true);
    let content = json!({"status": "ok", "remuda": "function"});
    let effects = world.coalesced(&json!([["e0", 0], ["e1", 1]]), &content, &[b"p0", b"m0", b"p1", b"m1"]);
    let buffers = |of: [&[u8]; 2]| of.map(<[u8]>::to_vec).to_vec();
    assert_eq!(answers(&effects), [("b0_e0", "e0", buffers([b"p0", b"m0"])), ("b0_e1", "e1", buffers([b"p1", b"m1"]))]);
}

#[test]
fn a_coalesced_reply_that_hides_a_failure_is_not_taken_for_results() {
    let content = json!({"status": "ok", "remuda": {"process": {"exit_code": 0, "signal": null, "wall_us": 5}}});
    let function = json!({"status": "ok", "remuda": "function"});
    let both = json!([["e0", 0], ["e1", 1]]);
    for (targets, content, buffers, reason) in [
        (&both, &ok(), &[&b"one"[..]][..], "1 buffers from 2 engines, 1 from each expected"),
        // As many as there are engines, and all from one of them.
        (&both, &function, &[b"p1", b"m1"], "2 buffers from 2 engines, 2 from each expected"),
        (&both, &content, &[b"a", b"b"], "that of a program"),
        (&json!([["e7", 7], ["e1", 1]]), &ok(), &[b"a", b"b"], "engine `e0` is not among"),
    ] {
        let mut world = World::with_both(true);
        let effects = world.coalesced(targets, content, buffers);
        let reasons = effects.iter().filter_map(|effect| match effect {
            Effect::Resolve { outcome: Outcome::Unreadable { reason }, .. } => Some(reason.as_str()),
            _ => None,
        });
        let reasons: Vec<_> = reasons.collect();
        assert!(reasons.len() == 2 && reasons.iter().all(|said| said.contains(reason)), "{effects:?}");
    }
}

#[test]
fn a_failure_in_a_coalesced_reply_is_that_of_all_parts() {
    let mut world = World::with_both(true);
    let info = json!({"engine_uuid": "e1", "engine_id": 1, "method": "apply"});
    let content = json!({"status": "error", "ename": "E", "evalue": "", "traceback": [], "engine_info": info});
    let effects = world.coalesced(&json!([["e0", 0], ["e1", 1]]), &content, &[b"zero"]);
    let by: Vec<_> = answers(&effects).into_iter().map(|(part, engine, _)| (part, engine)).collect();
    assert_eq!(by, [("b0_e0", "e1"), ("b0_e1", "e1")]);
    assert_eq!(world.idle("b0_e0"), [ended("b0_e0", true, 0)], "e0 is done with its own part");
    assert_eq!(world.wait(5), [ended("b0_e1", false, 0)]);
}

#[test]
fn an_engine_that_leaves_takes_a_coalesced_broadcast_with_it() {
    let mut world = World::with_both(true);
    let effects = world.left(1);
    let mut parts: Vec<_> =
        effects.iter().filter(|effect| matches!(effect, Effect::Resolve { .. })).map(resolved).collect();
    parts.sort_by_key(|(part, _)| *part);
    let outcome = Outcome::EngineLost(engine(1));
    assert_eq!(parts, [("b0_e0", &outcome), ("b0_e1", &outcome)]);
    let late = world.coalesced(&json!([["e0", 0], ["e1", 1]]), &ok(), &[b"zero", b"one"]);
    assert!(matches!(&late[..], [Effect::Refused { refusal: Refusal::Unexpected(_), .. }]), "{late:?}");
}

#[test]
fn what_the_controller_refuses_is_refused_to_every_part() {
    for coalesce in [false, true] {
        let mut world = World::with_both(coalesce);
        let content = json!({"status": "error", "ename": "ValueError", "evalue": "too large", "traceback": []});
        let effects =
            world.receive(Channel::Broadcast, "apply_reply", Some("b0"), &json!({"status": "error"}), &content);
        let parts: Vec<_> =
            effects.iter().filter(|effect| matches!(effect, Effect::Resolve { .. })).map(resolved).collect();
        assert!(matches!(parts[..], [("b0_e0", Outcome::Reply(_)), ("b0_e1", Outcome::Reply(_))]), "{effects:?}");
        assert!(world.client.is_empty());
    }
    let mut world = World::with_both(true);
    let nothing = world.receive(Channel::Broadcast, "apply_reply", Some("b0"), &json!({"status": "ok"}), &ok());
    assert!(matches!(&nothing[..], [Effect::Refused { refusal: Refusal::Unexpected(_), .. }]), "{nothing:?}");
}

/// A broadcast, and then another controller that answers in the place of the one that had it. What is asked of that one.
fn asked_of_another(coalesce: bool, before: &Value, after: &Value) -> (World, Vec<Value>) {
    let mut world = World::new();
    let list = |remuda: &Value| json!({"status": "ok", "engines": {"0": "e0", "1": "e1"}, "remuda": remuda});
    let msg_type = MsgType::ConnectionRequest;
    world.apply(Event::Query { msg_id: "q".into(), msg_type, content: json!({}), timeout: None });
    world.receive(Channel::Query, "connection_reply", Some("q"), &json!({}), &list(before));
    world.broadcast(2, coalesce, Bytes::new());
    world.sent.clear();
    // Nothing for a while, so that a stock controller, which does not say who it is, may be another one.
    for seconds in [1, 10, 10] {
        world.wait(seconds);
    }
    let (_, frames) = world.sent.pop().unwrap();
    let id = World::header(&frames).msg_id;
    world.receive(Channel::Query, "connection_reply", Some(id.as_str()), &json!({}), &list(after));
    let asked = world.sent.iter().filter(|(_, frames)| World::header(frames).msg_type == MsgType::ResultRequest);
    let asked = asked.map(|(_, frames)| serde_json::from_slice(frames.body.content()).unwrap()).collect();
    (world, asked)
}

#[test]
fn parts_that_were_lost_with_a_controller_are_asked_for_where_there_are_records_of_them() {
    let remuda = |pid: u32| json!({"version": "1", "pid": pid, "scheme": "lru", "hwm": 1, "started": "2026"});
    let (_, asked) = asked_of_another(false, &remuda(1), &remuda(2));
    assert_eq!(asked[0]["msg_ids"], json!(["b0_e0", "b0_e1"]));
    let (_, asked) = asked_of_another(false, &Value::Null, &Value::Null);
    assert_eq!(asked, [] as [Value; 0]);
    // There they are one by one, whatever they would have come as.
    let (mut world, _) = asked_of_another(true, &remuda(1), &remuda(2));
    let metadata = json!({"status": "ok", "engine": "e1", "is_coalescing": true, "original_msg_id": "b0"});
    let effects = world.buffers("b0_e1", &metadata, &ok(), &[b"one"]);
    assert_eq!(answers(&effects), [("b0_e1", "e1", vec![b"one".to_vec()])]);
    assert_eq!(world.client.len(), 1);
}
