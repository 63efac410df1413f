//! Another controller in the place of the one that had the tasks.

use super::*;

fn list(pid: u32) -> Value {
    json!({"status": "ok", "engines": {},
           "remuda": {"version": "1", "pid": pid, "scheme": "lru", "hwm": 1, "started": "2026"}})
}

impl World {
    /// Has the list of engines asked for, and answered by this controller.
    fn refresh(&mut self, pid: u32) -> Vec<Effect> {
        assert_eq!(self.wait(10), []);
        let asked = self.asked("connection_request").pop().unwrap();
        self.receive(Channel::Query, "connection_reply", Some(&asked.0), &json!({}), &list(pid))
    }

    /// The questions of this type that were sent and not yet looked at: their ids, and what they ask.
    fn asked(&mut self, msg_type: &str) -> Vec<(String, Value)> {
        let sent = std::mem::take(&mut self.sent).into_iter().map(|(_, frames)| (Self::header(&frames), frames));
        let asked = sent.filter(|(header, _)| header.msg_type.as_str() == msg_type);
        asked
            .map(|(header, frames)| (header.msg_id.to_string(), serde_json::from_slice(frames.body.content()).unwrap()))
            .collect()
    }

    fn told(&mut self, question: &str, content: &Value) -> Vec<Effect> {
        self.receive(Channel::Query, "result_reply", Some(question), &json!({}), content)
    }

    /// A client of controller 1 with three tasks, that hears of controller 2: the question that it asks then.
    fn taken_over() -> (Self, String) {
        let mut world = Self::new();
        let query = Event::Query {
            msg_id: "q".into(),
            msg_type: MsgType::ConnectionRequest,
            content: json!({"remuda": {}}),
            timeout: None,
        };
        world.apply(query);
        assert_eq!(world.receive(Channel::Query, "connection_reply", Some("q"), &json!({}), &list(1)).len(), 1);
        for task in ["t0", "t1", "t2"] {
            assert_eq!(world.submit(task, None), []);
        }
        assert_eq!(world.refresh(1), []);
        assert_eq!(world.asked("result_request"), [], "it is the same controller");
        assert_eq!(world.refresh(2), []);
        let asked = world.asked("result_request").pop().unwrap();
        assert_eq!(asked.1, json!({"msg_ids": ["t0", "t1", "t2"], "status_only": true, "remuda": {}}));
        (world, asked.0)
    }
}

#[test]
fn replies_that_were_lost_with_a_controller_are_fetched_from_the_next() {
    let (mut world, question) = World::taken_over();
    let status = json!({"status": "ok", "pending": ["t0"], "completed": ["t1"], "unknown": ["t2"]});
    assert_eq!(world.told(&question, &status), []);
    let asked = world.asked("result_request");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].1, json!({"msg_ids": ["t1"], "status_only": false, "remuda": {}}));
    let header = |id: &str, msg_type: &str| json!({"msg_id": id, "msg_type": msg_type, "session": "x", "username": "u", "version": "5.3", "date": "2026-11-23T12:00:00.000000Z"});
    let result = json!({"status": "ok", "pending": [], "completed": ["t1"], "unknown": [], "t1": {
        "header": header("t1", "apply_request"), "metadata": {}, "received": null, "io": {},
        "result_header": header("r", "apply_reply"), "result_metadata": {"status": "ok", "engine": "e0"}, "result_content": {"status": "ok"}}});
    let message = world.controller.message(
        Date(0),
        "result_reply".into(),
        Some(json!({"msg_id": asked[0].0}).to_string().as_bytes()),
        &json!({}),
        &result,
        &[Bytes::from_static(b"value")],
    );
    let frames = Frames::new([], message.unwrap().1);
    let effects = world.apply(Event::Message { channel: Channel::Query, frames });
    let (task, Outcome::Reply(reply)) = resolved(&effects[0]) else { panic!("{effects:?}") };
    assert_eq!((task, reply.status, reply.engine.clone()), ("t1", Status::Ok, Some("e0".into())));
    assert_eq!(reply.body.buffer(0).as_deref(), Some(&b"value"[..]));
    assert_eq!(world.client.len(), 2, "one has its reply still to come; nobody knows yet whether the other arrived");
    assert!(matches!(world.reply(Channel::Task, "t1")[..], [Effect::Refused { .. }]), "its own reply comes late");
    assert_eq!(resolved(&world.reply(Channel::Task, "t0")[0]).0, "t0");
}

#[test]
fn a_reply_that_nobody_has_any_more_is_an_error_and_no_endless_wait() {
    let (mut world, question) = World::taken_over();
    world.told(&question, &json!({"status": "ok", "pending": ["t0", "t2"], "completed": ["t1"], "unknown": []}));
    let asked = world.asked("result_request").pop().unwrap().0;
    let error = json!({"status": "error", "ename": "KeyError", "evalue": "'t1'", "traceback": []});
    let effects = world.receive(Channel::Query, "hub_error", Some(&asked), &json!({}), &error);
    let (task, Outcome::Unreadable { reason }) = resolved(&effects[0]) else { panic!("{effects:?}") };
    assert!(task == "t1" && reason.contains("lost with the controller"), "{reason}");
}

#[test]
fn what_was_not_answered_is_asked_again_with_the_next_list() {
    let (mut world, _) = World::taken_over();
    assert_eq!(resolved(&world.reply(Channel::Task, "t0")[0]).0, "t0");
    world.idle("t0");
    assert_eq!(world.refresh(2), []);
    let (question, content) = world.asked("result_request").pop().unwrap();
    assert_eq!(content["msg_ids"], json!(["t1", "t2"]), "those that have no reply yet");
    world.told(&question, &json!({"status": "ok", "pending": [], "completed": ["t1"]}));
    assert_eq!(world.asked("result_request").len(), 1);
    assert_eq!(world.refresh(2), []);
    let (_, content) = world.asked("result_request").pop().unwrap();
    assert_eq!(content["msg_ids"], json!(["t1"]), "its reply was not told in time");
}

#[test]
fn a_controller_that_answers_again_is_asked_as_well() {
    let (mut world, question) = World::taken_over();
    world.told(&question, &json!({"status": "ok", "pending": ["t0", "t1", "t2"], "completed": []}));
    assert_eq!(world.refresh(2), []);
    assert_eq!(world.asked("result_request"), []);
    assert_eq!(world.wait(10), []);
    assert_eq!(world.wait(10), [Effect::Answering(false)]);
    assert_eq!(world.refresh(2), [Effect::Answering(true)]);
    assert_eq!(world.asked("result_request").len(), 1);
}
