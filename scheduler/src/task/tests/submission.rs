//! What comes in from clients.

use super::*;
use remuda_proto::monitor::Durability;
use remuda_proto::{Date, MsgType, VerifyError};

#[test]
fn a_task_goes_to_an_engine_byte_for_byte() {
    let mut world = World::of(&["e"]);
    let request = world.request("a", "execute_request", &json!({"label": "x"}), &json!({"code": "1"}));
    let out = world.submit_body(request.clone());
    let [TaskEffect::Monitor(_), TaskEffect::ToEngine { engine, client, body }, TaskEffect::Monitor(_)] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((engine, client, body), (&ident("e"), &ident("c"), &request));
    assert_eq!(monitored(&out), ["request a", "a to e"]);
    assert_eq!(world.counts(), (0, 0, 1));
}

#[test]
fn a_task_without_an_engine_waits_for_one() {
    let mut world = World::of(&[]);
    assert_eq!(monitored(&world.submit("a", &plain())), ["request a"]);
    assert_eq!(world.counts(), (0, 1, 0));
    assert_eq!(sent(&world.join("e")), pairs(&[("a", "e")]));
}

#[test]
fn a_request_with_a_bad_signature_has_no_effect() {
    let mut world = World::of(&["e"]);
    let good = world.request("a", "apply_request", &plain(), &plain());
    let forged = Session::new(SessionId::from("x"), "u", Key::new("other"), Packer::Json, 1)
        .sign_parts([good.header(), good.parent_header(), good.metadata(), good.content()], []);
    let out = world.submit_body(forged);
    assert!(matches!(&out[..], [TaskEffect::Refused { from, .. }] if *from == ident("c")), "{out:?}");
    assert_eq!(refusals(&out), [Refusal::Verify(VerifyError::Invalid)]);
    assert_eq!(sent(&world.submit_body(good)).len(), 1);
}

#[test]
fn a_header_that_cannot_be_read_is_refused() {
    let mut world = World::of(&["e"]);
    let body = world.signer.sign_parts([b"[]", b"{}", b"{}", b"{}"], []);
    assert!(matches!(&refusals(&world.submit_body(body))[..], [Refusal::Unpack(_)]));
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_message_that_nothing_would_answer_does_not_hold_an_engine() {
    let mut world = World::of(&["e"]);
    let body = world.request("a", "comm_msg", &plain(), &plain());
    assert!(matches!(&refusals(&world.submit_body(body))[..], [Refusal::UnexpectedType(_)]));
    assert_eq!(world.counts(), (0, 0, 0));
}

#[test]
fn a_question_about_tasks_is_handed_to_the_hub_and_is_no_task() {
    for durability in Durability::ALL {
        let mut world = World::new(TaskConfig { durability, ..TaskConfig::default() });
        world.join("e");
        // The hub hears of a task as it comes, so before a question that comes after it, whatever waits for the disk.
        assert_eq!(monitored(&world.submit("a", &plain()))[0], "request a");
        let question = world.request("q", "result_request", &plain(), &json!({"msg_ids": ["a"], "status_only": true}));
        let out = world.submit_body(question.clone());
        let [TaskEffect::Monitor(Monitor::Asked { client, body })] = &out[..] else { panic!("{out:?}") };
        assert_eq!((client, body), (&ident("c"), &question));
        assert_eq!(world.scheduler.len(), 1);
    }
    let mut world = World::of(&["e"]);
    let forged = Session::new(SessionId::from("x"), "u", Key::new("other"), Packer::Json, 1).message(
        Date(0),
        MsgType::ResultRequest,
        None,
        &plain(),
        &plain(),
        &[],
    );
    assert_eq!(refusals(&world.submit_body(forged.unwrap().1)), [Refusal::Verify(VerifyError::Invalid)]);
}

#[test]
fn a_task_is_taken_once_live_or_finished() {
    let mut world = World::of(&["e"]);
    world.submit("a", &plain());
    let again = [Refusal::Resubmitted(MsgId::from("a"))];
    let out = world.submit("a", &plain());
    assert_eq!((refusals(&out).as_slice(), out.len()), (&again[..], 1));
    world.answer("e", "a", "ok");
    let out = world.submit("a", &plain());
    assert_eq!((refusals(&out).as_slice(), out.len()), (&again[..], 1));
    assert!(world.scheduler.is_idle());
}

#[test]
fn finished_ids_are_forgotten_beyond_the_limit() {
    let mut world = World::new(TaskConfig { max_finished_ids: 2, ..TaskConfig::default() });
    world.join("e");
    for id in ["a", "b", "c"] {
        world.submit(id, &plain());
        world.answer("e", id, "ok");
    }
    assert_eq!(world.scheduler.finished_ids(), 2);
    let after = |id: &str| json!({"after": [id]});
    assert_eq!(errors(&world.submit("late", &after("a"))), pairs(&[("late", "InvalidDependency")]));
    assert_eq!(sent(&world.submit("d", &after("c"))), pairs(&[("d", "e")]));
}

#[test]
fn nothing_is_remembered_where_nothing_may_be() {
    let mut world = World::new(TaskConfig { max_finished_ids: 0, ..TaskConfig::default() });
    world.join("e");
    world.submit("a", &plain());
    world.leave("e");
    world.answer("e", "a", "ok");
    assert_eq!((world.scheduler.finished_ids(), world.scheduler.engines.iter().count()), (0, 0));
}

#[test]
fn malformed_metadata_is_answered_and_recorded() {
    let mut world = World::of(&["e"]);
    for (at, (key, value, ename)) in [
        ("after", json!(5), "InvalidDependency"),
        ("follow", json!({"dependencies": ["x"], "success": false}), "InvalidDependency"),
        ("targets", json!("e"), "ValueError"),
        ("timeout", json!("soon"), "ValueError"),
        ("retries", json!({}), "ValueError"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{at}");
        let out = world.submit(&id, &json!({key: value}));
        assert_eq!(errors(&out), pairs(&[(&id, ename)]));
        assert_eq!(monitored(&out), [format!("request {id}"), format!("{id} failed by nobody")]);
        let TaskEffect::ToClient { body, .. } = &out[1] else { panic!("{out:?}") };
        let content: Value = serde_json::from_slice(body.content()).unwrap();
        assert!(content["evalue"].as_str().unwrap().contains(&format!("`{key}`")), "{content}");
    }
    let out = world.submit("whole", &json!([1]));
    assert_eq!(errors(&out), pairs(&[("whole", "ValueError")]));
    assert!(world.scheduler.is_idle());
    // It is a task that failed, so others can depend on it.
    let out = world.submit("after", &json!({"after": ["whole"]}));
    assert_eq!(errors(&out), pairs(&[("after", "ImpossibleDependency")]));
}

#[test]
fn intake_pauses_at_a_limit_and_resumes_when_a_quarter_is_gone() {
    let mut world = World::new(TaskConfig { max_pending_tasks: 4, ..TaskConfig::default() });
    world.join("e");
    let edges = |out: &[TaskEffect]| {
        let count = |is: fn(&TaskEffect) -> bool| out.iter().filter(|effect| is(effect)).count();
        let told = |paused: bool| {
            let intake = out.iter().filter_map(|effect| match effect {
                TaskEffect::Monitor(Monitor::Intake(limit)) => Some(*limit),
                _ => None,
            });
            intake.filter(|limit| limit.map(IntakeLimit::value) == paused.then_some(4)).count()
        };
        let pauses = count(|effect| matches!(effect, TaskEffect::PauseIntake(_)));
        let resumes = count(|effect| matches!(effect, TaskEffect::ResumeIntake));
        assert_eq!((told(true), told(false)), (pauses, resumes), "the hub is told the same");
        (pauses, resumes)
    };
    for id in ["a", "b", "c"] {
        assert_eq!(edges(&world.submit(id, &plain())), (0, 0));
    }
    assert_eq!(edges(&world.submit("d", &plain())), (1, 0));
    let late = world.submit("e", &plain());
    assert_eq!((edges(&late), world.scheduler.is_paused(), world.scheduler.len()), ((0, 0), true, 5));
    assert_eq!(edges(&world.answer("e", "a", "ok")), (0, 0));
    assert_eq!(edges(&world.answer("e", "b", "ok")), (0, 1));
    assert!(!world.scheduler.is_paused());
}

#[test]
fn intake_pauses_when_requests_take_too_much_room() {
    let size = World::of(&[]).request("a", "apply_request", &plain(), &plain()).size_bytes();
    let mut world = World::new(TaskConfig { max_pending_bytes: 2 * size, ..TaskConfig::default() });
    world.submit("a", &plain());
    assert_eq!((world.scheduler.pending_bytes(), world.scheduler.is_paused()), (size, false));
    for id in ["b", "c", "d"] {
        world.submit(id, &plain());
    }
    assert!(world.scheduler.is_paused());
    // Half of the room is what one takes: three quarters hold no two.
    for (id, paused) in [("d", true), ("c", true), ("b", false)] {
        world.abort(&[id]);
        assert_eq!(world.scheduler.is_paused(), paused, "{id}");
    }
}

#[test]
fn an_abort_answers_what_no_engine_has() {
    let mut world = World::of(&["e"]);
    world.submit("runs", &json!({"retries": 3}));
    let body = world.request("ready", "execute_request", &json!({"retries": 3, "timeout": 9}), &plain());
    world.submit_body(body);
    world.submit("waits", &json!({"after": ["runs"]}));
    world.submit("doomed", &json!({"after": ["waits"]}));
    assert_eq!(world.counts(), (2, 1, 1));
    let out = world.abort(&["runs", "ready", "waits", "waits", "unknown"]);
    let said: Vec<(String, String, String)> =
        told(&out).into_iter().map(|said| (said.msg_id, said.status, said.ename)).collect();
    let said: Vec<(&str, &str, &str)> = said.iter().map(|(a, b, c)| (&**a, &**b, &**c)).collect();
    assert_eq!(said, [("ready", "aborted", ""), ("waits", "aborted", ""), ("doomed", "error", "ImpossibleDependency")]);
    let TaskEffect::ToClient { body, engine: None, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(remuda_proto::Envelope::read(Packer::Json, body).unwrap().msg_type.as_str(), "execute_reply");
    assert_eq!((body.metadata(), body.content()), (&br#"{"status":"aborted"}"#[..], &br#"{"status":"aborted"}"#[..]));
    assert!(
        matches!(&out[1], TaskEffect::Monitor(Monitor::Reply { status: Status::Aborted, engine: None, .. })),
        "{out:?}"
    );
    assert_eq!(world.counts(), (0, 0, 1));
    assert!(world.scheduler.timers.is_empty());
    world.answer("e", "runs", "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_task_that_the_hub_repeats_has_no_client() {
    let mut world = World::of(&["e"]);
    let resubmit = |world: &mut World, id: &str, metadata: &Value| {
        let body = world.request(id, "apply_request", metadata, &json!({}));
        world.handle(TaskEvent::Resubmit { msg_id: id.into(), body })
    };
    let out = resubmit(&mut world, "a", &plain());
    assert_eq!(monitored(&out), ["a to e"], "the hub knows the request");
    assert!(matches!(&out[0], TaskEffect::ToEngine { client, .. } if *client == ident("hub")), "{out:?}");
    let out = world.answer("e", "a", "ok");
    assert!(matches!(&out[..], [TaskEffect::Monitor(Monitor::Reply { .. })]), "{out:?}");

    let out = resubmit(&mut world, "b", &json!({"targets": ["gone"]}));
    assert!(
        matches!(&out[..], [TaskEffect::Monitor(Monitor::Reply { .. })]),
        "it fails, and the hub hears of it: {out:?}"
    );

    let out = resubmit(&mut world, "a", &plain());
    let [TaskEffect::Monitor(Monitor::Reply { status, .. }), TaskEffect::Refused { .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*status, Status::Error, "a task that ran is not run again, and the hub does not wait for it");
}

#[test]
fn a_task_that_its_engine_does_not_read_goes_to_another_at_no_cost_and_never_back() {
    let mut world = World::of(&["slow", "other"]);
    let first = engine(&world.submit("a", &plain()));
    let body = world.scheduler.jobs.iter().next().unwrap().1.body.clone();
    let out = world.handle(TaskEvent::Undelivered { engine: ident(&first), body: body.clone() });
    let second = engine(&out);
    assert_ne!(second, first);
    // Said twice, or of an engine that does not have it, it means nothing.
    assert!(world.handle(TaskEvent::Undelivered { engine: ident(&first), body: body.clone() }).is_empty());
    let out = world.handle(TaskEvent::Undelivered { engine: ident(&second), body });
    assert!(matches!(&out[..], [TaskEffect::Monitor(Monitor::Requeued { .. })]), "{out:?}");
    assert_eq!(world.counts(), (0, 1, 0));
}

#[test]
fn messages_beyond_the_limit_are_answered_with_an_error_that_names_it() {
    let size = World::of(&[]).request("a", "apply_request", &plain(), &plain()).size_bytes();
    let mut world = World::new(TaskConfig { max_message_bytes: size + 500, ..TaskConfig::default() });
    world.join("e");
    let large = json!({"text": "x".repeat(1000)});
    let request = world.request("large", "apply_request", &plain(), &large);
    let out = world.submit_body(request);
    let [TaskEffect::ToClient { body, engine: None, .. }, TaskEffect::Refused { refusal, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(refusal.kind(), "too_large");
    assert!(String::from_utf8_lossy(body.content()).contains("--max-message-bytes"), "{body:?}");
    assert!(world.scheduler.is_idle());

    world.submit("small", &plain());
    let reply = world.result("small", &json!({"status": "ok"}), &large);
    let out = world.answer_body("e", reply);
    assert_eq!(errors(&out), pairs(&[("small", "ValueError")]));
    assert_eq!(monitored(&out), ["small failed by nobody"]);
    assert!(world.scheduler.is_idle());
}
