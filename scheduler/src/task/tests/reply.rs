//! What comes back from engines: replies, retries, timeouts.

use super::*;

#[test]
fn a_reply_goes_to_the_client_byte_for_byte() {
    let mut world = World::of(&["e"]);
    world.submit("a", &plain());
    let body = world.result("a", &json!({"status": "ok", "engine": "e"}), &json!({"status": "ok"}));
    let out = world.answer_body("e", body.clone());
    let [
        TaskEffect::ToClient { client, engine: Some(engine), body: relayed },
        TaskEffect::Monitor(Monitor::Reply { body: recorded, .. }),
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((client, engine, relayed, recorded), (&ident("c"), &ident("e"), &body, &body));
    assert_eq!(monitored(&out), ["a done by e"]);
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_reply_without_a_status_in_its_metadata_is_not_lost() {
    for (metadata, content, record) in [
        (json!({}), json!({"status": "error"}), "a failed by e"),
        (json!({}), json!({"status": "ok"}), "a done by e"),
        (json!({}), json!({}), "a done by e"),
        // Garbage is handed on: only the client can tell what it is worth.
        (json!({"status": "fine"}), json!({}), "a failed by e"),
        (json!([5]), json!({}), "a failed by e"),
    ] {
        let mut world = World::of(&["e"]);
        world.submit("a", &plain());
        let body = world.result("a", &metadata, &content);
        let out = world.answer_body("e", body);
        assert_eq!((told(&out).len(), monitored(&out)), (1, vec![record.to_owned()]), "{metadata} {content}");
    }
}

#[test]
fn a_reply_that_is_not_expected_changes_nothing() {
    let mut world = World::of(&["b", "a"]);
    world.submit("1", &json!({"retries": 1}));
    let unexpected = |id: &str| vec![Refusal::Unexpected(MsgId::from(id))];
    // From an engine that does not have it.
    assert_eq!(refusals(&world.answer("b", "1", "ok")), unexpected("1"));
    assert_eq!(engine(&world.answer("a", "1", "error")), "b");
    // From an older attempt.
    let out = world.answer("a", "1", "ok");
    assert_eq!((refusals(&out), out.len()), (unexpected("1"), 1));
    world.answer("b", "1", "ok");
    // A second time, and of a task that never was.
    assert_eq!(refusals(&world.answer("b", "1", "ok")), unexpected("1"));
    assert_eq!(refusals(&world.answer("b", "x", "ok")), unexpected("x"));
    // To a task that only waits.
    world.leave("a");
    world.leave("b");
    world.submit("2", &plain());
    assert_eq!(refusals(&world.answer("b", "2", "ok")), unexpected("2"));
    let orphan = world.signer.sign_parts([br#"{"msg_id": "r", "msg_type": "apply_reply"}"#, b"{}", b"{}", b"{}"], []);
    assert_eq!(refusals(&world.answer_body("b", orphan)), [Refusal::NoParent]);
    let garbage = world.signer.sign_parts([b"{}", b"[", b"{}", b"{}"], []);
    assert!(matches!(&refusals(&world.answer_body("b", garbage))[..], [Refusal::Unpack(_)]));
}

#[test]
fn a_reply_with_a_bad_signature_has_no_effect() {
    let mut world = World::of(&["e"]);
    world.submit("a", &plain());
    let good = world.result("a", &json!({"status": "ok"}), &json!({}));
    let forged = Session::new(SessionId::from("x"), "u", Key::new("other"), Packer::Json, 1)
        .sign_parts([good.header(), good.parent_header(), good.metadata(), good.content()], []);
    let out = world.answer_body("e", forged);
    assert_eq!(refusals(&out), [Refusal::Verify(remuda_proto::VerifyError::Invalid)]);
    assert!(matches!(&out[..], [TaskEffect::Refused { from, .. }] if *from == ident("e")), "{out:?}");
    assert_eq!(told(&world.answer_body("e", good)).len(), 1);
}

#[test]
fn a_reply_goes_to_whoever_submitted_the_task() {
    let mut world = World::of(&["e"]);
    world.submit("a", &plain());
    let body = world.result("a", &json!({"status": "ok"}), &json!({}));
    let out = world.handle(TaskEvent::Result { engine: ident("e"), client: ident("somebody else"), body });
    assert!(matches!(&out[0], TaskEffect::ToClient { client, .. } if *client == ident("c")), "{out:?}");
}

#[test]
fn a_failure_is_tried_again_elsewhere_as_often_as_allowed() {
    let mut world = World::of(&["c", "b", "a"]);
    assert_eq!(engine(&world.submit("1", &json!({"retries": 2}))), "a");
    let out = world.answer("a", "1", "error");
    assert_eq!((engine(&out), told(&out), monitored(&out)), ("b".to_owned(), vec![], vec!["1 to b".to_owned()]));
    assert_eq!(engine(&world.answer("b", "1", "error")), "c");
    let out = world.answer("c", "1", "error");
    assert_eq!((sent(&out), told(&out)[0].status.as_str()), (vec![], "error"));
    assert!(world.scheduler.is_idle());
}

#[test]
fn what_was_aborted_is_not_tried_again() {
    let mut world = World::of(&["b", "a"]);
    assert_eq!(engine(&world.submit("1", &json!({"retries": 2}))), "a");
    let out = world.answer("a", "1", "aborted");
    assert_eq!((sent(&out), told(&out)[0].status.as_str()), (vec![], "aborted"));
    assert!(world.scheduler.is_idle());
}

#[test]
fn an_unmet_dependency_is_no_retry() {
    let mut world = World::of(&["c", "b", "a"]);
    world.submit("1", &json!({"retries": 1}));
    assert_eq!(engine(&world.unmet("a", "1")), "b");
    assert_eq!(engine(&world.answer("b", "1", "error")), "c");
    assert_eq!(told(&world.answer("c", "1", "error")).len(), 1);
}

#[test]
fn no_engine_gets_a_task_twice() {
    let mut world = World::of(&["e"]);
    world.submit("1", &json!({"retries": 5, "timeout": 3}));
    assert_eq!(sent(&world.answer("e", "1", "error")), []);
    assert_eq!(world.counts(), (0, 1, 0));
    // Others get past it.
    assert_eq!(engine(&world.submit("2", &plain())), "e");
    assert_eq!(sent(&world.answer("e", "2", "ok")), []);
    // Not even when it comes back.
    world.leave("e");
    assert_eq!(sent(&world.join("e")), []);
    assert_eq!(errors(&world.pass(Duration::from_secs(3))), pairs(&[("1", "TaskTimeout")]));
}

#[test]
fn a_new_engine_gets_what_the_others_could_not_run() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.unmet("e", "1");
    world.submit("2", &plain());
    world.submit("3", &plain());
    assert_eq!(sent(&world.join("f")), pairs(&[("1", "f")]));
    // A task that was tried goes behind those that were there before it.
    assert_eq!(sent(&world.unmet("e", "2")), pairs(&[("3", "e")]));
    assert_eq!(sent(&world.answer("f", "1", "ok")), pairs(&[("2", "f")]));
}

#[test]
fn engines_that_tried_neighbours_in_the_queue_swap_them() {
    let mut world = World::of(&["b", "a"]);
    for id in ["1", "2", "3", "4", "5"] {
        world.submit(id, &plain());
    }
    assert_eq!(sent(&world.unmet("a", "1")), pairs(&[("3", "a")]));
    assert_eq!(sent(&world.unmet("b", "2")), pairs(&[("4", "b")]));
    // 1, which `a` tried, stands right before 2, which it did not; both are behind 5.
    assert_eq!(sent(&world.answer("a", "3", "ok")), pairs(&[("5", "a")]));
    assert_eq!(sent(&world.answer("a", "5", "ok")), pairs(&[("2", "a")]));
    assert_eq!(sent(&world.answer("b", "4", "ok")), pairs(&[("1", "b")]));
}

#[test]
fn targets_that_all_tried_are_impossible() {
    let mut world = World::of(&["b", "a"]);
    world.submit("1", &json!({"targets": ["a"], "retries": 4}));
    assert_eq!(errors(&world.answer("a", "1", "error")), pairs(&[("1", "ImpossibleDependency")]));
    world.submit("2", &json!({"targets": ["a", "b"]}));
    let first = engine(&world.submit("other", &plain()));
    let second = if first == "a" { "b" } else { "a" };
    assert_eq!(sent(&world.unmet(second, "2")), []);
    assert_eq!(sent(&world.answer(&first, "other", "ok")), pairs(&[("2", &*first)]));
    assert_eq!(errors(&world.unmet(&first, "2")), pairs(&[("2", "ImpossibleDependency")]));
}

#[test]
fn a_followed_place_that_tried_is_impossible() {
    let mut world = World::of(&["b", "a"]);
    world.submit("1", &plain());
    world.answer("a", "1", "ok");
    world.submit("2", &json!({"follow": ["1"], "retries": 1}));
    assert_eq!(errors(&world.answer("a", "2", "error")), pairs(&[("2", "ImpossibleDependency")]));
}

#[test]
fn the_timeout_starts_again_when_a_task_is_queued_again() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"timeout": 10, "retries": 1}));
    assert_eq!(world.scheduler.deadline(), Some(Instant::default() + Duration::from_secs(10)));
    assert!(world.pass(Duration::from_secs(9)).is_empty());
    world.answer("e", "1", "ok");
    // It runs: no timeout interrupts it.
    assert_eq!(world.scheduler.deadline(), None);
    assert!(world.pass(Duration::from_secs(100)).is_empty());
    world.answer("e", "2", "error");
    assert!(world.pass(Duration::from_secs(9)).is_empty());
    let out = world.pass(Duration::from_secs(1));
    assert_eq!(errors(&out), pairs(&[("2", "TaskTimeout")]));
    assert_eq!(monitored(&out), ["2 failed by nobody"]);
    assert!(world.scheduler.is_idle());
}

#[test]
fn the_timeout_counts_while_a_task_waits_for_others() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"after": ["1"], "timeout": 5}));
    world.submit("3", &json!({"after": ["2"]}));
    let out = world.pass(Duration::from_secs(5));
    assert_eq!(errors(&out), pairs(&[("2", "TaskTimeout"), ("3", "ImpossibleDependency")]));
    // Becoming ready does not start it again.
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.submit("busy", &plain());
    world.submit("2", &json!({"after": ["1"], "timeout": 5}));
    world.pass(Duration::from_secs(4));
    world.answer("e", "1", "ok");
    assert_eq!(world.counts(), (0, 1, 1));
    assert_eq!(errors(&world.pass(Duration::from_secs(1))), pairs(&[("2", "TaskTimeout")]));
}

#[test]
fn a_negative_timeout_is_over_at_once_and_zero_never() {
    let mut world = World::of(&["e"]);
    assert_eq!(engine(&world.submit("1", &json!({"timeout": -1}))), "e");
    world.submit("2", &json!({"timeout": -1}));
    world.submit("3", &json!({"timeout": 0.0}));
    assert_eq!(errors(&world.pass(Duration::ZERO)), pairs(&[("2", "TaskTimeout")]));
    assert!(world.pass(Duration::from_secs(1_000_000)).is_empty());
}

#[test]
fn the_scheduler_s_own_errors_are_as_stock_writes_them() {
    let mut world = World::of(&["e"]);
    let request = world.request("1", "execute_request", &json!({"targets": ["x"]}), &plain());
    let out = world.submit_body(request.clone());
    let TaskEffect::ToClient { engine: None, body, .. } = &out[1] else { panic!("{out:?}") };
    world.signer.key().verify(body).unwrap();
    let envelope = remuda_proto::Envelope::read(Packer::Json, body).unwrap();
    assert_eq!((envelope.msg_type.as_str(), envelope.session.as_str()), ("apply_reply", "scheduler"));
    assert_eq!((body.parent_header(), body.metadata()), (request.header(), &b"{}"[..]));
    let content: Value = serde_json::from_slice(body.content()).unwrap();
    let expected = json!({"status": "error", "ename": "ImpossibleDependency", "evalue": "",
        "traceback": ["ImpossibleDependency"], "engine_info": {}});
    assert_eq!((content, body.buffer_count()), (expected, 0));
}
