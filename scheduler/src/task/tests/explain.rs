//! What the scheduler says of its tasks when it is asked.

use remuda_proto::message::story::{
    Assigned, AttemptEnd, Explanation, Known, LiveTask, MAX_ATTEMPTS, MAX_NAMED, Ready, TaskState, WaitsFor, Why,
};

use super::*;

fn explained(mut out: Vec<TaskEffect>) -> Explanation {
    match (out.pop(), out.len()) {
        (Some(TaskEffect::Monitor(Monitor::Explained(explanation))), 0) => *explanation,
        other => panic!("{other:?}"),
    }
}

fn ask(world: &mut World, msg_id: &str) -> Known {
    let event = TaskEvent::Explain { question: 5, msg_ids: vec![msg_id.into()], whole: false };
    let explanation = explained(world.handle(event));
    assert_eq!((explanation.question, explanation.tasks.len()), (5, 1));
    assert_eq!(explanation.scheduler, None);
    explanation.tasks.into_iter().next().unwrap()
}

fn live(world: &mut World, msg_id: &str) -> LiveTask {
    match ask(world, msg_id) {
        Known::Live(task) => *task,
        other => panic!("{other:?}"),
    }
}

fn ready(world: &mut World, msg_id: &str) -> Ready {
    match live(world, msg_id).state {
        TaskState::Ready(ready) => ready,
        other => panic!("{other:?}"),
    }
}

/// The reasons, how many engines each holds for, and which are named.
fn reasons(ready: &Ready) -> Vec<(Why, u64, String)> {
    let named = |named: &[remuda_proto::message::story::EngineLoad]| {
        named.iter().map(|load| format!("{}:{}", load.engine.uuid, load.tasks)).collect::<Vec<_>>().join(" ")
    };
    ready.obstacles.iter().map(|of| (of.why, of.engines, named(&of.named))).collect()
}

#[test]
fn without_engines_there_is_no_reason_to_name() {
    let mut world = World::of(&[]);
    world.submit("a", &plain());
    world.submit("b", &plain());
    let of = ready(&mut world, "b");
    assert_eq!((of.registered, of.ahead, &*of.need, of.until), (0, 1, "python", None));
    assert_eq!(of.obstacles, []);
}

#[test]
fn engines_without_room_are_counted_and_some_are_named() {
    let names: Vec<String> = (0..20).map(|number| format!("e{number:02}")).collect();
    let mut world = World::of(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    for task in 0..21 {
        world.submit(&format!("t{task}"), &plain());
    }
    let of = ready(&mut world, "t20");
    assert_eq!((of.registered, of.hwm, of.obstacles.len()), (20, 1, 1));
    assert_eq!((of.obstacles[0].why, of.obstacles[0].engines), (Why::NoRoom, 20));
    assert_eq!(of.obstacles[0].named.len(), MAX_NAMED);
    assert!(of.obstacles[0].named.iter().all(|load| load.tasks == 1));
}

#[test]
fn what_tried_the_task_and_what_cannot_run_it_are_told_apart() {
    let mut world = World::of(&["e1", "e2"]);
    world.register("n1", native(&[]));
    world.submit("other", &plain());
    world.submit("a", &plain());
    let TaskState::Assigned(Assigned { engine, .. }) = live(&mut world, "a").state else { panic!() };
    world.unmet(engine.uuid.as_str(), "a");
    world.submit("more", &plain());
    let (had, has) = if engine.uuid.as_str() == "e1" { ("e1:1", "e2:1") } else { ("e2:1", "e1:1") };
    assert_eq!(
        reasons(&ready(&mut world, "a")),
        [(Why::NoRoom, 1, has.into()), (Why::Tried, 1, had.into()), (Why::CannotRun, 1, "n1:0".into())]
    );
    let of = live(&mut world, "a");
    assert_eq!((of.tried, &of.attempts[0].end, &of.attempts[0].engine.uuid), (1, &AttemptEnd::Unmet, &engine.uuid));
}

#[test]
fn targets_that_are_gone_and_engines_that_are_none_are_told_apart() {
    let mut world = World::of(&["e1", "e2", "e3"]);
    world.submit("other", &json!({"targets": ["e1"]}));
    world.submit("a", &json!({"targets": ["e1", "gone"]}));
    assert_eq!(
        reasons(&ready(&mut world, "a")),
        [(Why::NoRoom, 1, "e1:1".into()), (Why::Gone, 1, "gone:0".into()), (Why::NotATarget, 2, String::new())]
    );
}

#[test]
fn engines_where_the_tasks_to_follow_did_not_run_are_counted() {
    let mut world = World::of(&["e1", "e2", "e3"]);
    let ran = engine(&world.submit("a", &plain()));
    world.answer(&ran, "a", "ok");
    world.submit("busy", &json!({"targets": [ran]}));
    world.submit("b", &json!({"follow": ["a"]}));
    let expected = [(Why::NoRoom, 1, format!("{ran}:1")), (Why::NotFollowed, 2, String::new())];
    assert_eq!(reasons(&ready(&mut world, "b")), expected);
    world.submit("c", &json!({"follow": ["a"], "targets": [ran, "e1", "e2", "e3"]}));
    let told = reasons(&ready(&mut world, "c"));
    assert_eq!(
        told.iter().map(|(why, count, _)| (*why, *count)).collect::<Vec<_>>(),
        [(Why::NoRoom, 1), (Why::NotFollowed, 2)]
    );
}

#[test]
fn a_task_that_waits_names_some_of_what_it_waits_for_and_when_it_gives_up() {
    let mut world = World::of(&["e1"]);
    world.now.date = remuda_proto::Date(1_000_000_000);
    let (_, after) = (world.submit("done", &plain()), ["done", "runs", "queued"]);
    world.answer("e1", "done", "ok");
    world.submit("runs", &plain());
    world.submit("queued", &plain());
    world.submit("w", &json!({"after": after, "timeout": 10}));
    let TaskState::Waiting(waiting) = live(&mut world, "w").state else { panic!() };
    assert_eq!(waiting.until, Some(remuda_proto::Date(1_010_000_000)));
    assert_eq!(waiting.follow, None);
    let unfinished = vec![("runs".into(), "assigned".to_owned()), ("queued".into(), "ready".to_owned())];
    let (tasks, counted, against) = (3, 1, 0);
    let expected = WaitsFor { all: true, success: true, failure: false, tasks, counted, against, unfinished };
    assert_eq!(waiting.after, Some(expected));
}

#[test]
fn attempts_are_told_while_the_task_lives_and_once_more_as_it_ends() {
    let mut world = World::of(&["e1", "e2", "e3"]);
    let first = engine(&world.submit("a", &json!({"retries": 2})));
    world.pass(Duration::from_secs(2));
    let error = json!({"status": "error", "ename": "KeyError", "evalue": "x".repeat(500)});
    let body = world.result("a", &json!({"status": "error"}), &error);
    let second = engine(&world.answer_body(&first, body));
    let of = live(&mut world, "a");
    assert_eq!((of.retries_left, of.tried), (1, 1));
    let AttemptEnd::Failed(said) = &of.attempts[0].end else { panic!("{of:?}") };
    assert!(said.starts_with("KeyError: xxx") && said.chars().count() < 130, "{said}");
    assert_eq!(of.attempts[0].ended.0 - of.attempts[0].sent.0, 2_000_000);
    world.leave(&second);
    let out = world.pass(Duration::from_secs(6));
    let third = engine(&out);
    let out = world.answer(&third, "a", "ok");
    let told = out.iter().find_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Attempts { msg_id, attempts, tried }) => Some((msg_id, attempts, *tried)),
        _ => None,
    });
    let (msg_id, attempts, tried) = told.unwrap();
    let engines: Vec<&str> = attempts.iter().map(|attempt| attempt.engine.uuid.as_str()).collect();
    assert_eq!((msg_id.as_str(), tried, &engines[..]), ("a", 3, &[&*first, &*second, &*third][..]));
    assert_eq!((&attempts[1].end, &attempts[2].end), (&AttemptEnd::Died, &AttemptEnd::Replied));
    assert!(matches!(out.last(), Some(TaskEffect::Monitor(Monitor::Reply { .. }))), "the reply comes after: {out:?}");
}

#[test]
fn a_task_that_is_tried_once_costs_the_hub_nothing_more() {
    let mut world = World::of(&["e1"]);
    world.submit("a", &json!({"retries": 2}));
    let out = world.answer("e1", "a", "ok");
    assert!(!out.iter().any(|effect| matches!(effect, TaskEffect::Monitor(Monitor::Attempts { .. }))), "{out:?}");
}

#[test]
fn only_the_last_attempts_are_kept() {
    let names: Vec<String> = (0..30).map(|number| format!("e{number:02}")).collect();
    let mut world = World::of(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let mut on = engine(&world.submit("a", &plain()));
    for _ in 0..25 {
        on = engine(&world.unmet(&on, "a"));
    }
    let of = live(&mut world, "a");
    assert_eq!((of.tried, of.attempts.len()), (25, MAX_ATTEMPTS));
}

#[test]
fn a_task_whose_engine_is_gone_says_until_when_its_reply_is_awaited() {
    let mut world = World::of(&["e1"]);
    world.submit("a", &plain());
    world.leave("e1");
    let TaskState::Assigned(assigned) = live(&mut world, "a").state else { panic!() };
    assert_eq!(assigned.until.unwrap().0 - assigned.since.0, 5_000_000);
}

#[test]
fn what_ended_is_known_by_how_and_where_and_what_never_was_is_not() {
    let mut world = World::of(&["e1"]);
    world.submit("a", &plain());
    world.answer("e1", "a", "error");
    let Known::Finished(ended) = ask(&mut world, "a") else { panic!() };
    assert_eq!((ended.ok, ended.engine.unwrap().uuid.as_str()), (Some(false), "e1"));
    assert!(matches!(ask(&mut world, "never"), Known::Unknown));
}

#[test]
fn the_whole_state_counts_what_there_is() {
    let mut world = World::of(&["e1", "e2"]);
    world.submit("a", &plain());
    world.submit("b", &plain());
    world.submit("c", &json!({"targets": ["e1"], "timeout": 100}));
    world.submit("d", &json!({"after": ["a"]}));
    world.submit_body(world.request("e", "apply_request", &plain(), &json!({"remuda": {"function": "mul"}})));
    let whole = explained(world.handle(TaskEvent::Explain { question: 0, msg_ids: Vec::new(), whole: true }));
    let whole = whole.scheduler.unwrap();
    assert_eq!((whole.waiting, whole.ready, whole.assigned, whole.timers), (1, 2, 2, 1));
    let engines: Vec<_> = whole.engines.iter().map(|of| (of.uuid.as_str(), of.outstanding, of.queued)).collect();
    assert_eq!(engines, [("e1", 1, 1), ("e2", 1, 0)]);
    let queues: Vec<_> = whole.queues.iter().map(|of| (&*of.need, of.tasks, of.ready, of.engines)).collect();
    assert_eq!(queues, [("python", 4, 0, 2), ("function `mul`", 1, 1, 0)]);
}
