//! Engines that get no more tasks, and are shut down when they have nothing left.

use remuda_hub::{Effect, Event};
use remuda_proto::message::{MsgType, Status};
use remuda_proto::monitor::{Monitor, Queue};
use serde_json::{Value, json};

use super::support::{LONG, Story};

/// What is asked for, and what it comes to but for the reply, which says that it is done.
fn drain(story: &mut Story, targets: &Value, drain: bool, shutdown: bool) -> Vec<Effect> {
    let content = json!({"targets": targets, "drain": drain, "shutdown": shutdown});
    let mut out = story.query("drain_request", &content);
    let Some(Effect::Reply { body, .. }) = out.pop() else { panic!("a reply is due: {out:?}") };
    let answer = story.read(&body);
    assert_eq!((answer.msg_type.as_str(), &answer.content["status"]), ("drain_reply", &json!("ok")), "{answer:?}");
    out
}

/// The number of the request that the task scheduler is told of, if it is to give an engine no more tasks.
fn told(out: &[Effect], engine: &str) -> Option<u64> {
    let [Effect::Drain { uuid, request }] = out else { panic!("the task scheduler is told: {out:?}") };
    assert_eq!(uuid.as_str(), engine);
    *request
}

fn idle(story: &mut Story, engine: &str, request: u64) -> Vec<Effect> {
    story.monitor(Monitor::Drained { engine: engine.into(), request })
}

/// Whether the engine is told to end, and nothing else happens.
fn ends(story: &Story, out: &[Effect], engine: &str) -> bool {
    let [Effect::Signal { engine: uuid, body }] = out else {
        assert_eq!(out, []);
        return false;
    };
    assert_eq!(uuid.as_str(), engine);
    let message = story.read(body);
    assert_eq!((message.msg_type, message.content), (MsgType::ShutdownRequest, json!({"restart": false})));
    true
}

#[test]
fn an_engine_ends_when_it_has_neither_tasks_nor_direct_requests_left_and_no_sooner() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("d", "a");
    story.task_on("t", "a");
    let out = drain(&mut story, &json!([0]), true, true);
    let request = told(&out, "a").expect("it gets no more");
    assert_eq!(story.queues()["0"]["tasks"], 1);
    let status = story.queue_reply(&json!({"targets": null, "remuda": {}}));
    assert_eq!(status["remuda"]["engines"]["0"]["state"], "draining");
    assert_eq!(story.ends("t", Queue::Task, Some("a"), Status::Ok), []);
    let out = idle(&mut story, "a", request);
    assert!(!ends(&story, &out, "a"), "it has a direct request");
    let out = story.ends("d", Queue::Mux, Some("a"), Status::Ok);
    assert!(ends(&story, &out, "a"));
    let out = drain(&mut story, &json!([0]), true, true);
    assert!(!ends(&story, &out, "a"), "it is told once");
}

#[test]
fn without_a_shutdown_it_stays_until_one_is_asked_for() {
    let mut story = Story::new();
    story.engine("a");
    let out = drain(&mut story, &json!("a"), true, false);
    let request = told(&out, "a").unwrap();
    let out = idle(&mut story, "a", request);
    assert!(!ends(&story, &out, "a"));
    let out = drain(&mut story, &json!(null), true, true);
    assert!(ends(&story, &out, "a"));
}

#[test]
fn one_gets_tasks_again_unless_it_is_ending_and_late_words_of_the_scheduler_mean_nothing() {
    let mut story = Story::new();
    story.engine("a");
    let out = drain(&mut story, &json!([0]), true, true);
    let first = told(&out, "a").unwrap();
    let out = drain(&mut story, &json!([0]), false, false);
    assert_eq!(told(&out, "a"), None);
    assert_eq!(drain(&mut story, &json!([0]), false, false), [], "it gets tasks already");
    assert_eq!(idle(&mut story, "a", first), []);
    let out = drain(&mut story, &json!([0]), true, true);
    let second = told(&out, "a").unwrap();
    let out = idle(&mut story, "a", first);
    assert!(!ends(&story, &out, "a"), "that was said before it got tasks again");
    let out = idle(&mut story, "a", second);
    assert!(ends(&story, &out, "a"));
    let answer = story.ask("drain_request", &json!({"targets": [0], "drain": false}));
    assert_eq!(answer.error().1, "RuntimeError");
    assert!(answer.error().2.contains("[0]"), "{answer:?}");
}

#[test]
fn bad_requests_change_nothing_and_say_what_is_wrong() {
    let mut story = Story::new();
    story.engine("a");
    for (content, ename, named) in [
        (json!({"targets": [0, 4], "drain": true}), "IndexError", "4"),
        (json!({"targets": [0]}), "KeyError", "drain"),
        (json!({"drain": true}), "KeyError", "targets"),
        (json!({"targets": [0], "drain": "yes"}), "TypeError", "'yes'"),
        (json!({"targets": [0], "drain": true, "shutdown": 1}), "TypeError", "1"),
    ] {
        let answer = story.ask("drain_request", &content);
        let (_, found, evalue) = answer.error();
        assert!(found == ename && evalue.contains(named), "{content}: {found}: {evalue}");
    }
    assert_eq!(story.hub.draining().count(), 0);
}

#[test]
fn the_next_controller_gives_it_no_tasks_either() {
    let mut story = Story::new();
    story.engine("a");
    story.engine("b");
    drain(&mut story, &json!(["b"]), true, true);
    story.pass(LONG);
    let saved = story.saved.last().unwrap().clone();

    let mut next = Story::new();
    next.event(Event::Restore(saved));
    let out = next.beat(&["a", "b"]);
    let drained = out.iter().filter_map(|effect| match effect {
        Effect::Drain { uuid, request } => Some((uuid.as_str(), *request)),
        _ => None,
    });
    let [("b", Some(request))] = drained.collect::<Vec<_>>()[..] else { panic!("{out:?}") };
    let joined = out.iter().position(|effect| matches!(effect, Effect::Joined { id, .. } if id.0 == 1));
    let drain = out.iter().position(|effect| matches!(effect, Effect::Drain { .. }));
    assert!(joined < drain, "{out:?}");
    let out = idle(&mut next, "b", request);
    assert!(ends(&next, &out, "b"));
}

#[test]
fn an_engine_that_leaves_is_forgotten_and_one_that_never_comes_back_too() {
    let mut story = Story::new();
    story.engine("a");
    drain(&mut story, &json!([0]), true, false);
    story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(story.hub.draining().count(), 0);
    let state = json!({"engines": {"3": "c"}, "next_id": 4, "remuda_drained": {"3": {"shutdown": true}}});
    story.event(Event::Restore(serde_json::from_value(state).unwrap()));
    assert_eq!(story.hub.draining().count(), 1);
    story.pass(LONG);
    assert_eq!(story.hub.draining().count(), 0);
}

#[test]
fn a_nanny_that_knows_the_uuid_alone_unregisters_its_engine() {
    let mut story = Story::new();
    story.engine("a");
    story.ask("registration_request", &json!({"uuid": "pending"}));
    for uuid in ["a", "pending", "nobody"] {
        story.query("unregistration_request", &json!({"id": null, "remuda": {"uuid": uuid}}));
    }
    assert_eq!(story.engines(), json!({}));
    assert!(matches!(&story.beat(&["pending"])[..], [Effect::ForgetHeart(_)]), "it is not registered by that");
}
