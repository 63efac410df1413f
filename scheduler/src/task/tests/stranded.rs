//! Tasks whose engine is gone.

use super::*;

const GRACE: Duration = TaskConfig::GRACE;

#[test]
fn a_late_reply_within_the_grace_time_counts() {
    let mut world = World::of(&["e"]);
    world.submit("1", &json!({"retries": 1}));
    assert!(world.leave("e").is_empty());
    assert_eq!(world.scheduler.deadline(), Some(Instant::default() + GRACE));
    world.pass(GRACE.saturating_sub(Duration::from_millis(1)));
    let out = world.answer("e", "1", "ok");
    assert_eq!(monitored(&out), ["1 done by e"]);
    assert!(world.scheduler.is_idle());
    assert!(world.pass(GRACE).is_empty());
}

#[test]
fn a_stranded_task_fails_with_an_engine_error() {
    let mut world = World::of(&["e"]);
    let request = world.request("1", "execute_request", &plain(), &plain());
    world.submit_body(request.clone());
    world.submit("2", &json!({"after": ["1"]}));
    world.leave("e");
    let out = world.pass(GRACE);
    let TaskEffect::ToClient { client, engine: Some(engine), body } = &out[0] else { panic!("{out:?}") };
    assert_eq!((client, engine), (&ident("c"), &ident("e")));
    assert_eq!(body.parent_header(), request.header());
    assert_eq!(remuda_proto::Envelope::read(Packer::Json, body).unwrap().msg_type.as_str(), "apply_reply");
    let content: Value = serde_json::from_slice(body.content()).unwrap();
    assert_eq!(content["ename"], "EngineError");
    assert_eq!(content["evalue"], "Engine b'e' died while running task '1'");
    assert!(content["traceback"].is_array(), "{content}");
    let metadata: Value = serde_json::from_slice(body.metadata()).unwrap();
    assert_eq!(metadata, json!({"status": "error", "engine": "e", "date": "1970-01-01T00:00:00Z"}));
    assert_eq!(monitored(&out), ["1 failed by e", "2 failed by nobody"]);
    assert_eq!(refusals(&world.answer("e", "1", "ok")), [Refusal::Unexpected(MsgId::from("1"))]);
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_stranded_task_is_retried_elsewhere() {
    let mut world = World::of(&["b", "a"]);
    assert_eq!(engine(&world.submit("1", &json!({"retries": 1}))), "a");
    world.leave("a");
    // The grace time comes first.
    assert!(world.pass(GRACE.saturating_sub(Duration::from_millis(1))).is_empty());
    assert_eq!(sent(&world.pass(Duration::from_millis(1))), pairs(&[("1", "b")]));
    assert_eq!(refusals(&world.answer("a", "1", "ok")), [Refusal::Unexpected(MsgId::from("1"))]);
    // That was the one retry.
    assert_eq!(told(&world.answer("b", "1", "error")).len(), 1);
}

#[test]
fn stranded_tasks_are_dealt_with_in_order() {
    let mut world = World::with(Scheme::LeastLoad, 0);
    world.join("e");
    for id in ["1", "2", "3", "4"] {
        world.submit(id, &plain());
    }
    world.answer("e", "1", "ok");
    world.leave("e");
    let lost: Vec<String> = told(&world.pass(GRACE)).into_iter().map(|said| said.msg_id).collect();
    assert_eq!(lost, ["2", "3", "4"]);
}

#[test]
fn an_engine_that_comes_back_may_still_answer_and_is_not_overloaded() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.leave("e");
    world.submit("2", &plain());
    assert_eq!(sent(&world.join("e")), []);
    assert_eq!(world.load("e"), 1);
    let out = world.answer("e", "1", "ok");
    assert_eq!((monitored(&out)[0].as_str(), sent(&out)), ("1 done by e", pairs(&[("2", "e")])));
    // The grace time was for 1 alone.
    assert!(world.pass(GRACE).is_empty());
    assert_eq!(world.counts(), (0, 0, 1));
}

#[test]
fn an_engine_that_came_back_without_its_task_gets_others_once_that_is_given_up() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.leave("e");
    world.join("e");
    world.submit("2", &plain());
    let out = world.pass(GRACE);
    assert_eq!(errors(&out), pairs(&[("1", "EngineError")]));
    assert_eq!(sent(&out), pairs(&[("2", "e")]));
}

#[test]
fn a_stranded_task_ran_where_its_engine_was() {
    let mut world = World::of(&["other", "e"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"follow": {"dependencies": ["1"], "success": false, "failure": true}}));
    world.leave("e");
    world.join("e");
    let out = world.pass(GRACE);
    assert_eq!((errors(&out), sent(&out)), (pairs(&[("1", "EngineError")]), pairs(&[("2", "e")])));
}

#[test]
fn leaving_again_does_not_prolong_the_grace_time() {
    let mut world = World::with(Scheme::LeastLoad, 2);
    world.join("e");
    world.submit("1", &plain());
    world.leave("e");
    world.pass(Duration::from_secs(3));
    world.join("e");
    world.submit("2", &plain());
    world.leave("e");
    assert_eq!(errors(&world.pass(Duration::from_secs(2))), pairs(&[("1", "EngineError")]));
    assert_eq!(errors(&world.pass(Duration::from_secs(3))), pairs(&[("2", "EngineError")]));
}

#[test]
fn registering_twice_and_leaving_twice_mean_nothing() {
    let mut world = World::of(&["b", "a"]);
    world.submit("1", &plain());
    assert!(world.register("a", native(&[])).is_empty());
    assert_eq!((world.load("a"), world.scheduler.engine_count()), (1, 2));
    world.leave("a");
    assert!(world.leave("a").is_empty());
    assert!(world.leave("nobody").is_empty());
    assert_eq!(world.scheduler.engine_count(), 1);
}

#[test]
fn a_departed_engine_is_forgotten_with_the_last_that_names_it() {
    let mut world = World::new(TaskConfig { max_finished_ids: 1, ..TaskConfig::default() });
    for round in 0..20 {
        let (uuid, id) = (format!("e{round}"), format!("t{round}"));
        world.join(&uuid);
        world.submit(&id, &plain());
        world.answer(&uuid, &id, "ok");
        world.leave(&uuid);
    }
    // The one finished task that is remembered ran on the last of them.
    assert_eq!(world.scheduler.engines.iter().count(), 1);
}
