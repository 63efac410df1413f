//! Tasks that were on their way to a controller that died.

use super::*;

fn list(pid: u32, durability: &str) -> Value {
    json!({"status": "ok", "engines": {"0": "e0", "1": "e1"},
           "remuda": {"version": "1", "pid": pid, "scheme": "lru", "hwm": 1, "started": "2026", "durability": durability}})
}

/// The frames of a question, and what it asks.
struct Asked {
    channel: Channel,
    msg_id: String,
    msg_ids: Value,
}

impl World {
    /// One with a controller that makes this promise.
    fn of(durability: &str) -> Self {
        let mut world = Self::with_engines();
        let (msg_type, content) = (MsgType::ConnectionRequest, json!({"remuda": {}}));
        world.apply(Event::Query { msg_id: "q".into(), msg_type, content, timeout: None });
        world.receive(Channel::Query, "connection_reply", Some("q"), &json!({}), &list(1, durability));
        world.sent.clear();
        world
    }

    /// The list of engines is asked for, and this is the answer.
    fn listed(&mut self, list: &Value) -> Vec<Effect> {
        assert_eq!(self.wait(10), []);
        let sent =
            self.sent.iter().rposition(|(_, frames)| Self::header(frames).msg_type == MsgType::ConnectionRequest);
        let (_, frames) = self.sent.remove(sent.unwrap());
        self.receive(Channel::Query, "connection_reply", Some(Self::header(&frames).msg_id.as_str()), &json!({}), list)
    }

    /// The questions that were sent and not looked at, and nothing else.
    fn questions(&mut self) -> Vec<Asked> {
        let sent = std::mem::take(&mut self.sent).into_iter();
        sent.map(|(channel, frames)| {
            let header = Self::header(&frames);
            assert_eq!(header.msg_type, MsgType::ResultRequest);
            let content: Value = serde_json::from_slice(frames.body.content()).unwrap();
            assert_eq!((&content["status_only"], &content["remuda"]), (&json!(true), &json!({})));
            Asked { channel, msg_id: header.msg_id.to_string(), msg_ids: content["msg_ids"].clone() }
        })
        .collect()
    }

    /// The one question that was sent, and on which channel: its id.
    fn question(&mut self, channel: Channel, msg_ids: &Value) -> String {
        let mut asked = self.questions();
        assert_eq!(asked.len(), 1);
        let asked = asked.pop().unwrap();
        assert_eq!((asked.channel, &asked.msg_ids), (channel, msg_ids));
        asked.msg_id
    }

    fn knows(&mut self, question: &str, pending: &Value, unknown: &Value) -> Vec<Effect> {
        let content = json!({"status": "ok", "pending": pending, "completed": [], "unknown": unknown});
        self.receive(Channel::Query, "result_reply", Some(question), &json!({}), &content)
    }

    /// What was sent of tasks, and not looked at.
    fn tasks(&mut self) -> Vec<(Channel, Frames)> {
        let sent = std::mem::take(&mut self.sent);
        let (tasks, rest) =
            sent.into_iter().partition(|(_, frames)| Self::header(frames).msg_type == MsgType::ApplyRequest);
        self.sent = rest;
        tasks
    }

    /// A client whose controller died that made this promise, with two tasks and a direct request of which the next knows one
    /// task: what it sent, and the questions that it asks behind these.
    fn robbed(durability: &str) -> (Self, Vec<(Channel, Frames)>, [String; 2]) {
        let mut world = Self::of(durability);
        for (task, engine) in [("t0", None), ("t1", Some("e1")), ("t2", None)] {
            assert_eq!(world.submit(task, engine), []);
        }
        let sent = world.tasks();
        assert_eq!(world.listed(&list(2, "sync")), []);
        let question = world.question(Channel::Query, &json!(["t0", "t1", "t2"]));
        assert_eq!(world.knows(&question, &json!(["t0"]), &json!(["t1", "t2"])), []);
        let [task, mux] = &world.questions()[..] else { panic!("a question for each channel") };
        assert_eq!((task.channel, &task.msg_ids), (Channel::Task, &json!(["t2"])));
        assert_eq!((mux.channel, &mux.msg_ids), (Channel::Mux, &json!(["t1"])));
        let questions = [task.msg_id.clone(), mux.msg_id.clone()];
        (world, sent, questions)
    }
}

fn lost(effect: &Effect) -> (&str, Lost) {
    let (task, Outcome::Lost(lost)) = resolved(effect) else { panic!("{effect:?}") };
    (task, *lost)
}

#[test]
fn what_is_unknown_behind_itself_was_lost_and_is_sent_again_as_it_was() {
    let (mut world, sent, [task, mux]) = World::robbed("sync");
    assert_eq!(world.knows(&task, &json!([]), &json!(["t2"])), []);
    assert_eq!(world.tasks(), [sent[2].clone()], "the same bytes, under the same id");
    assert_eq!(world.knows(&mux, &json!([]), &json!(["t1"])), []);
    assert_eq!(world.tasks(), [sent[1].clone()]);
    assert_eq!(resolved(&world.reply(Channel::Task, "t2")[0]).0, "t2");
    assert_eq!(resolved(&world.reply(Channel::Mux, "t1")[0]).0, "t1");
    // Nothing is asked about them any more.
    let idle = json!({"execution_state": "idle"});
    let of_e1 = world.receive(Channel::Iopub, "status", Some("t1"), &json!({"engine": "e1"}), &idle);
    assert_eq!([of_e1, world.idle("t2")], [[ended("t1", true, 0)], [ended("t2", true, 0)]]);
    assert_eq!(world.listed(&list(2, "sync")), []);
    assert_eq!(world.questions().len(), 0);
}

#[test]
fn what_arrived_after_all_is_not_sent_again() {
    let (mut world, _, [task, _]) = World::robbed("sync");
    assert_eq!(world.knows(&task, &json!(["t2"]), &json!([])), []);
    assert_eq!(world.sent, []);
    assert_eq!(resolved(&world.reply(Channel::Task, "t2")[0]).0, "t2");
}

#[test]
fn only_what_was_asked_about_is_sent_again_and_what_is_done_is_fetched() {
    let (mut world, _, [task, _]) = World::robbed("sync");
    let content = json!({"status": "ok", "pending": [], "completed": ["t2"], "unknown": ["t0", "x"]});
    assert_eq!(world.receive(Channel::Query, "result_reply", Some(&task), &json!({}), &content), []);
    assert_eq!(world.tasks(), []);
    let (_, frames) = world.sent.pop().unwrap();
    let content: Value = serde_json::from_slice(frames.body.content()).unwrap();
    assert_eq!(content, json!({"msg_ids": ["t2"], "status_only": false, "remuda": {}}));
}

#[test]
fn what_is_submitted_meanwhile_is_in_doubt_until_one_question_was_answered() {
    let (mut world, _, [task, _]) = World::robbed("sync");
    // The connection may be the dead one still.
    assert_eq!(world.submit("t3", None), []);
    assert_eq!(world.submit("t4", None), []);
    let sent = world.tasks();
    assert_eq!(world.questions().len(), 0, "one question at a time");
    assert_eq!(world.knows(&task, &json!(["t2"]), &json!([])), []);
    let question = world.question(Channel::Task, &json!(["t3", "t4"]));
    assert_eq!(world.knows(&question, &json!([]), &json!(["t4", "t3"])), []);
    assert_eq!(world.tasks(), sent, "in the order in which they were sent at first");
    assert_eq!(world.submit("t5", None), []);
    assert_eq!((world.tasks().len(), world.questions().len()), (1, 0), "the connection is sound");
}

#[test]
fn a_task_that_is_the_first_after_a_change_of_controllers_is_asked_about_at_once() {
    let mut world = World::of("sync");
    assert_eq!(world.listed(&list(2, "sync")), []);
    assert_eq!(world.submit("t0", None), []);
    let sent = world.tasks();
    let question = world.question(Channel::Task, &json!(["t0"]));
    assert_eq!(world.knows(&question, &json!([]), &json!(["t0"])), []);
    assert_eq!(world.tasks(), sent);
}

#[test]
fn a_question_that_is_lost_itself_is_asked_again_less_and_less_often() {
    let (mut world, sent, _) = World::robbed("sync");
    let mut times = Vec::new();
    for turn in 1..40 {
        assert_eq!(world.listed(&list(2, "sync")), []);
        if !world.sent.is_empty() {
            let [task, _] = &world.questions()[..] else { panic!("one for each channel") };
            times.push((turn, task.msg_id.clone()));
        }
    }
    let turns: Vec<i32> = times.iter().map(|(turn, _)| *turn).collect();
    assert_eq!(turns, [1, 3, 7, 15, 31], "after 10, 20, 40, 80, 160 seconds");
    let late = world.knows(&times[3].1, &json!([]), &json!(["t2"]));
    assert!(matches!(late[..], [Effect::Refused { .. }]), "another was asked in its place: {late:?}");
    assert_eq!(world.knows(&times[4].1, &json!([]), &json!(["t2"])), []);
    assert_eq!(world.tasks(), [sent[2].clone()]);
}

#[test]
fn while_the_controller_is_silent_nothing_more_is_asked_of_it() {
    let (mut world, _, _) = World::robbed("sync");
    assert_eq!(world.wait(10), []);
    assert_eq!(world.wait(10), [Effect::Answering(false)]);
    world.sent.clear();
    assert_eq!(world.submit("t3", None), []);
    assert_eq!((world.tasks().len(), world.sent.len()), (1, 0));
    // It is back: all of it begins again.
    assert_eq!(world.listed(&list(2, "sync")), [Effect::Answering(true)]);
    let question = world.question(Channel::Query, &json!(["t0", "t1", "t2", "t3"]));
    assert_eq!(world.knows(&question, &json!(["t0", "t1", "t2"]), &json!(["t3"])), []);
    world.question(Channel::Task, &json!(["t3"]));
}

#[test]
fn a_second_death_makes_the_question_of_the_first_void() {
    let (mut world, sent, _) = World::robbed("sync");
    // Asked once more, and waited for longer than until the next list.
    assert_eq!(world.listed(&list(2, "sync")), []);
    let task = world.questions().swap_remove(0).msg_id;
    assert_eq!(world.listed(&list(3, "sync")), []);
    let status = world.question(Channel::Query, &json!(["t0", "t1", "t2"]));
    let late = world.knows(&task, &json!([]), &json!(["t2"]));
    assert!(matches!(late[..], [Effect::Refused { .. }]), "{late:?}");
    assert_eq!(world.knows(&status, &json!(["t1"]), &json!(["t0", "t2"])), []);
    let question = world.question(Channel::Task, &json!(["t0", "t2"]));
    assert_eq!(world.knows(&question, &json!([]), &json!(["t0", "t2"])), []);
    assert_eq!(world.tasks(), [sent[0].clone(), sent[2].clone()]);
    // And what was sent again may be lost again.
    assert_eq!(world.listed(&list(4, "sync")), []);
    let status = world.question(Channel::Query, &json!(["t0", "t1", "t2"]));
    assert_eq!(world.knows(&status, &json!(["t0", "t1"]), &json!(["t2"])), []);
    let question = world.question(Channel::Task, &json!(["t2"]));
    assert_eq!(world.knows(&question, &json!([]), &json!(["t2"])), []);
    assert_eq!(world.tasks(), [sent[2].clone()]);
}

#[test]
fn what_may_have_run_without_a_record_is_sent_again_only_where_that_is_usual() {
    let (mut world, sent, [task, mux]) = World::robbed("async");
    assert_eq!(world.knows(&task, &json!([]), &json!(["t2"])), []);
    assert_eq!(world.tasks(), [sent[2].clone()], "a task that was lost with a controller is tried again");
    let effects = world.knows(&mux, &json!([]), &json!(["t1"]));
    assert_eq!(lost(&effects[0]), ("t1", Lost::MayHaveRun), "a direct request is not");
    let (mut world, _, [task, _]) = World::robbed("none");
    let effects = world.knows(&task, &json!([]), &json!(["t2"]));
    assert_eq!(lost(&effects[0]), ("t2", Lost::MayHaveRun));
    assert_eq!(effects[1], ended("t2", true, 0));
    assert_eq!(world.client.len(), 2);
}

#[test]
fn what_was_not_kept_is_an_error_and_no_endless_wait() {
    let mut world = World::of("sync");
    assert_eq!(world.submit("t0", None), []);
    let bytes = world.sent[0].1.body.size_bytes();
    let mut world = World::with_engines();
    world.client = world.client.with_resend_limit(bytes * 3 / 2);
    let (msg_type, content) = (MsgType::ConnectionRequest, json!({"remuda": {}}));
    world.apply(Event::Query { msg_id: "q".into(), msg_type, content, timeout: None });
    world.receive(Channel::Query, "connection_reply", Some("q"), &json!({}), &list(1, "sync"));
    for task in ["t0", "t1"] {
        assert_eq!(world.submit(task, None), []);
    }
    let sent = world.tasks();
    world.sent.clear();
    assert_eq!(world.listed(&list(2, "sync")), []);
    let status = world.question(Channel::Query, &json!(["t0", "t1"]));
    assert_eq!(world.knows(&status, &json!([]), &json!(["t0", "t1"])), []);
    let question = world.question(Channel::Task, &json!(["t0", "t1"]));
    let effects = world.knows(&question, &json!([]), &json!(["t0", "t1"]));
    assert_eq!((lost(&effects[0]), effects.len()), (("t0", Lost::NotKept), 2));
    assert_eq!(world.tasks(), [sent[1].clone()]);
}

#[test]
fn a_controller_that_cannot_be_asked_so_is_not() {
    let silent = json!({"status": "ok", "engines": {"0": "e0", "1": "e1"}});
    let mut older = list(2, "");
    older["remuda"].as_object_mut().unwrap().remove("durability");
    for next in [silent, older] {
        let mut world = World::of("sync");
        assert_eq!(world.submit("t0", None), []);
        assert_eq!(world.wait(10), []);
        assert_eq!(world.wait(10), [Effect::Answering(false)]);
        world.sent.clear();
        assert_eq!(world.listed(&next), [Effect::Answering(true)]);
        let question = world.question(Channel::Query, &json!(["t0"]));
        assert_eq!(world.knows(&question, &json!([]), &json!(["t0"])), []);
        assert_eq!(world.submit("t1", None), []);
        assert_eq!((world.tasks().len(), world.sent.len()), (1, 0), "{next}");
    }
}

#[test]
fn a_direct_request_to_an_engine_that_left_meanwhile_is_not_sent_again() {
    let (mut world, _, [_, mux]) = World::robbed("sync");
    let left = json!({"id": 1, "uuid": "e1"});
    let effects = world.receive(Channel::Notification, "unregistration_notification", None, &json!({}), &left);
    assert!(matches!(resolved(&effects[1]), ("t1", Outcome::EngineLost(_))));
    assert_eq!(world.knows(&mux, &json!([]), &json!(["t1"])), []);
    assert_eq!(world.tasks(), []);
}
