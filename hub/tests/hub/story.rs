//! Questions whose answers need what other parts of the controller know.

use remuda_hub::store::{MemoryStore, NoStore};
use remuda_hub::{ANSWER_WITHIN, Effect, Event, Limits, MAX_QUESTIONS};
use remuda_proto::message::Status;
use remuda_proto::message::story::{
    Assigned, Attempt, AttemptEnd, DriverState, EngineName, EngineState, Explanation, Forgotten, HeartState, Known,
    LiveTask, Refused, SchedulerState, TaskState,
};
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{Date, MsgId};
use serde_json::{Value, json};

use crate::support::{KEY, Story};

/// Asks; the number of the question, and the tasks that the task scheduler is asked about.
fn ask(story: &mut Story, msg_ids: &[&str]) -> (u64, Vec<MsgId>) {
    let out = story.query("story_request", &json!({"msg_ids": msg_ids}));
    let [Effect::Explain { question, msg_ids, whole: false }] = &out[..] else { panic!("{out:?}") };
    (*question, msg_ids.clone())
}

/// The task scheduler answers; what the client gets.
fn explained(story: &mut Story, question: u64, tasks: Vec<Known>, scheduler: Option<SchedulerState>) -> Vec<Effect> {
    story.monitor(Monitor::Explained(Box::new(Explanation { question, tasks, scheduler })))
}

fn content(story: &Story, out: &[Effect]) -> Value {
    let [Effect::Reply { body, .. }] = out else { panic!("one reply is due: {out:?}") };
    story.read(body).content
}

/// The stories of tasks of which the task scheduler knows nothing.
fn stories_by_the_hub(story: &mut Story, msg_ids: &[&str]) -> Value {
    let (question, tasks) = ask(story, msg_ids);
    let out = explained(story, question, vec![Known::Unknown; tasks.len()], None);
    content(story, &out)["stories"].clone()
}

fn on(uuid: &str) -> EngineName {
    EngineName { id: None, uuid: uuid.into() }
}

fn assigned(story: &mut Story, msg_id: &str, engine: &str) -> Known {
    let (_, request) = story.apply(msg_id, &json!({"label": "l"}));
    let state = TaskState::Assigned(Assigned { engine: on(engine), since: Date(5), tasks: 1, until: None });
    Known::Live(Box::new(LiveTask { request, retries_left: 2, attempts: Vec::new(), tried: 0, state }))
}

#[test]
fn a_live_task_is_told_as_the_task_scheduler_sees_it_with_the_numbers_of_engines() {
    let mut story = Story::new();
    let id = story.engine("e");
    story.task_on("t", "e");
    let (question, tasks) = ask(&mut story, &["t"]);
    assert_eq!(tasks, [MsgId::from("t")]);
    let known = assigned(&mut story, "t", "e");
    let out = explained(&mut story, question, vec![known], None);
    let told = content(&story, &out)["stories"][0].clone();
    assert_eq!((&told["asked"], &told["told"], &told["state"]), (&json!("t"), &json!("task"), &json!("assigned")));
    assert_eq!(told["engine"], json!({"id": id, "uuid": "e"}));
    assert_eq!((&told["queue"], &told["retries_left"], &told["client"]), (&json!("task"), &json!(2), &json!("client")));
}

#[test]
fn a_task_whose_record_was_dropped_is_told_from_its_request() {
    let mut story = Story::with(MemoryStore::new(Limits { records: 0, ..Limits::default() }));
    story.engine("e");
    story.task_on("t", "e");
    let (question, _) = ask(&mut story, &["t"]);
    let known = assigned(&mut story, "t", "e");
    let out = explained(&mut story, question, vec![known], None);
    let told = &content(&story, &out)["stories"][0];
    assert_eq!(
        (&told["on_record"], &told["label"], &told["msg_type"]),
        (&json!(false), &json!("l"), &json!("apply_request"))
    );
}

#[test]
fn a_reply_that_comes_before_the_answer_counts() {
    let mut story = Story::new();
    story.engine("e");
    story.task_on("t", "e");
    let (question, _) = ask(&mut story, &["t"]);
    story.ends("t", Queue::Task, Some("e"), Status::Error);
    let ended = Forgotten { ok: Some(false), engine: Some(on("e")) };
    let out = explained(&mut story, question, vec![Known::Finished(ended)], None);
    let told = &content(&story, &out)["stories"][0];
    assert_eq!((&told["state"], &told["status"], &told["error"]), (&json!("finished"), &json!("error"), &json!("E: ")));
}

#[test]
fn without_an_answer_of_the_task_scheduler_there_is_one_at_the_deadline() {
    let mut story = Story::new();
    story.request("t", Queue::Task, None);
    let (question, _) = ask(&mut story, &["t", "other"]);
    assert_eq!(story.pass(ANSWER_WITHIN / 2), []);
    let out = story.pass(ANSWER_WITHIN);
    let stories = content(&story, &out)["stories"].clone();
    assert_eq!((&stories[0]["state"], &stories[1]["told"]), (&json!("untold"), &json!("unknown")));
    assert_eq!(explained(&mut story, question, vec![Known::Unknown; 2], None), [], "it comes too late");
}

#[test]
fn the_beginning_of_an_id_is_enough_if_it_is_the_only_one() {
    let mut story = Story::new();
    for id in ["s_1", "s_10", "s_11", "other"] {
        story.request(id, Queue::Task, None);
    }
    let (question, tasks) = ask(&mut story, &["oth", "s_1", "s_10"]);
    assert_eq!(tasks, ["other", "s_1", "s_10"].map(MsgId::from), "an id that is whole counts as such");
    explained(&mut story, question, Vec::new(), None);
    let several = stories_by_the_hub(&mut story, &["s_", "nothing", ""]);
    assert_eq!((&several[0]["told"], &several[0]["count"]), (&json!("several"), &json!(3)));
    assert_eq!((&several[1]["told"], &several[2]["told"]), (&json!("unknown"), &json!("unknown")));
}

#[test]
fn a_task_that_ended_is_told_with_its_attempts() {
    let mut story = Story::new();
    let ids = [story.engine("e"), story.engine("f")];
    story.task_on("t", "e");
    story.sent("t", "f");
    let attempts = [("e", AttemptEnd::Failed("E: x".into())), ("f", AttemptEnd::Replied)];
    let attempts =
        attempts.map(|(uuid, end)| Attempt { engine: on(uuid), sent: Date(1), ended: Date(2), end }).to_vec();
    story.monitor(Monitor::Attempts { msg_id: "t".into(), attempts, tried: 2 });
    story.ends("t", Queue::Task, Some("f"), Status::Ok);
    let told = &stories_by_the_hub(&mut story, &["t"])[0];
    assert_eq!((&told["state"], &told["status"], &told["tried"]), (&json!("finished"), &json!("ok"), &json!(2)));
    assert_eq!((&told["attempts"][0]["engine"]["id"], &told["attempts"][0]["error"]), (&json!(ids[0]), &json!("E: x")));
    assert_eq!(told["attempts"][1]["engine"]["id"], json!(ids[1]));
}

#[test]
fn direct_requests_are_told_as_far_as_the_hub_knows() {
    let mut story = Story::new();
    story.engine("e");
    story.direct("a", "e");
    story.direct("b", "e");
    let told = stories_by_the_hub(&mut story, &["b"]);
    assert_eq!(
        (&told[0]["state"], &told[0]["unanswered"], &told[0]["queue"]),
        (&json!("sent"), &json!(2), &json!("mux"))
    );
    story.ends("b", Queue::Mux, Some("e"), Status::Ok);
    assert_eq!(stories_by_the_hub(&mut story, &["b"])[0]["state"], "finished");
}

#[test]
fn a_broadcast_is_told_by_the_engines_that_have_not_answered() {
    let mut story = Story::new();
    for engine in ["e", "f", "g"] {
        story.engine(engine);
        story.request(&format!("b_{engine}"), Queue::Broadcast, Some(engine));
    }
    story.ends("b_e", Queue::Broadcast, Some("e"), Status::Ok);
    story.ends("b_f", Queue::Broadcast, Some("f"), Status::Error);
    let told = &stories_by_the_hub(&mut story, &["b"])[0];
    assert_eq!((&told["told"], &told["msg_id"], &told["engines"]), (&json!("broadcast"), &json!("b"), &json!(3)));
    assert_eq!((&told["ok"], &told["failed"], &told["missing"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(told["named"][0]["uuid"], "g");
    assert_eq!(stories_by_the_hub(&mut story, &["b_g"])[0]["state"], "sent");
}

#[test]
fn without_records_it_is_known_that_a_task_ended() {
    let mut story = Story::with(NoStore::default());
    story.engine("e");
    story.task_on("t", "e");
    story.ends("t", Queue::Task, Some("e"), Status::Ok);
    assert_eq!(stories_by_the_hub(&mut story, &["t"])[0]["state"], "forgotten");
    let (question, _) = ask(&mut story, &["long ago"]);
    let ended = Known::Finished(Forgotten { ok: Some(true), engine: Some(on("e")) });
    let out = explained(&mut story, question, vec![ended], None);
    let told = &content(&story, &out)["stories"][0];
    assert_eq!(
        (&told["state"], &told["ok"], &told["engine"]["uuid"]),
        (&json!("forgotten"), &json!(true), &json!("e"))
    );
}

#[test]
fn questions_that_make_no_sense_or_are_too_many_are_refused() {
    let mut story = Story::new();
    assert_eq!(story.ask("story_request", &json!({"msg_ids": [5]})).error().1, "TypeError");
    assert_eq!(story.ask("story_request", &json!({})).error().1, "TypeError");
    assert_eq!(story.ask("story_request", &json!({"msg_ids": vec!["x"; 101]})).error().1, "ValueError");
    assert_eq!(story.ask("dump_request", &json!({"tasks": "all"})).error().1, "TypeError");
    assert_eq!(story.ask("dump_request", &json!({"tasks": 10_001})).error().1, "ValueError");
    for _ in 0..MAX_QUESTIONS {
        ask(&mut story, &["x"]);
    }
    assert_eq!(story.ask("story_request", &json!({"msg_ids": ["x"]})).error().1, "RuntimeError");
    assert_eq!(story.pass(ANSWER_WITHIN).len(), MAX_QUESTIONS, "each has its answer");
    ask(&mut story, &["x"]);
}

#[test]
fn a_dump_waits_for_all_who_have_something_to_say_and_holds_no_key() {
    let mut story = Story::new();
    let id = story.engine("e");
    story.task_on("t", "e");
    let out = story.query("dump_request", &json!({"tasks": 10}));
    let [Effect::Explain { question, msg_ids, whole: true }] = &out[..] else { panic!("{out:?}") };
    let question = *question;
    assert_eq!(msg_ids[..], [MsgId::from("t")]);
    let hearts = HeartState { period_ms: 3000, max_misses: 10, hearts: vec![("e".into(), 2)] };
    assert_eq!(story.event(Event::Hearts { question, hearts }), []);
    let refused = vec![Refused { socket: "task".into(), kind: "signature".into(), count: 3 }];
    assert_eq!(
        story.event(Event::Drivers { question, drivers: DriverState { refused, ..DriverState::default() } }),
        []
    );
    let engines = vec![EngineState { uuid: "e".into(), outstanding: 1, queued: 4 }];
    let known = assigned(&mut story, "t", "e");
    let scheduler = SchedulerState { assigned: 1, engines, ..SchedulerState::default() };
    let out = explained(&mut story, question, vec![known], Some(scheduler));
    let dump = content(&story, &out);
    let engine = &dump["engines"][0];
    assert_eq!((&engine["id"], &engine["missed_beats"], &engine["queued"]), (&json!(id), &json!(2), &json!(4)));
    assert_eq!((&dump["scheduler"]["assigned"], &dump["hub"]["running"]), (&json!(1), &json!(1)));
    assert_eq!((&dump["hub"]["records"]["records"], &dump["tasks"][0]["msg_id"]), (&json!(1), &json!("t")));
    assert_eq!((&dump["refused"][0]["count"], &dump["silent"]), (&json!(3), &json!([])));
    assert!(!dump.to_string().contains(KEY));
}

#[test]
fn a_dump_names_who_said_nothing() {
    let mut story = Story::new();
    story.query("dump_request", &json!({}));
    let out = story.pass(ANSWER_WITHIN);
    let dump = content(&story, &out);
    assert_eq!(dump["silent"], json!(["task scheduler", "heart monitor", "drivers"]));
    assert_eq!((&dump["scheduler"], &dump["tasks"]), (&Value::Null, &json!([])));
}
