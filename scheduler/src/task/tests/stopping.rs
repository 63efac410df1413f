//! What runs on Python engines is stopped by their nannies.

use super::*;
use crate::task::stopping::STOP_GRACE;

const LIMIT: Duration = Duration::from_secs(7);

fn limited() -> Value {
    json!({"remuda": {"run_timeout": 7}})
}

/// The signals that were asked for: engine, number, and the id of the request.
fn signals(out: &[TaskEffect]) -> Vec<(String, i64, MsgId)> {
    let signals = out.iter().filter_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Signal { engine, body }) => {
            let content: Value = serde_json::from_slice(body.content()).unwrap();
            let header: Value = serde_json::from_slice(body.header()).unwrap();
            assert_eq!(header["msg_type"], "signal_request");
            session("x").key().verify(body).unwrap();
            Some((
                engine.to_string(),
                content["sig"].as_i64().unwrap(),
                MsgId::from(header["msg_id"].as_str().unwrap()),
            ))
        }
        _ => None,
    });
    signals.collect()
}

/// The one signal that was asked for.
fn signal(out: &[TaskEffect]) -> (String, i64, MsgId) {
    let [signal] = &signals(out)[..] else { panic!("{out:?}") };
    signal.clone()
}

impl World {
    fn interrupted(&mut self, engine: &str, msg_id: &str) -> Vec<TaskEffect> {
        let content = json!({"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []});
        let body = self.result(msg_id, &json!({"status": "error", "dependencies_met": true}), &content);
        self.answer_body(engine, body)
    }

    fn confirm(&mut self, signal: &(String, i64, MsgId)) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Signalled { msg_id: signal.2.clone() })
    }
}

#[test]
fn a_task_that_runs_for_too_long_is_interrupted_and_the_engine_goes_on_with_the_next() {
    let mut world = World::of(&["a"]);
    world.submit("t", &limited());
    world.submit("next", &plain());
    assert!(signals(&world.pass(LIMIT / 2)).is_empty());
    let interrupt = signal(&world.pass(LIMIT / 2));
    assert_eq!((&*interrupt.0, interrupt.1), ("a", 2));
    assert!(told(&world.confirm(&interrupt)).is_empty());
    let out = world.interrupted("a", "t");
    assert_eq!(errors(&out), pairs(&[("t", "RunTimeout")]));
    assert_eq!(sent(&out), pairs(&[("next", "a")]));
    world.answer("a", "next", "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn the_next_task_waits_until_the_signal_is_out() {
    let mut world = World::of(&["a"]);
    world.submit("t", &limited());
    world.submit("next", &plain());
    let interrupt = signal(&world.pass(LIMIT));
    let out = world.answer("a", "t", "ok");
    assert!(told(&out).is_empty() && sent(&out).is_empty(), "the signal may still come: {out:?}");
    let out = world.confirm(&interrupt);
    assert_eq!(errors(&out), pairs(&[("t", "RunTimeout")]), "it had its time");
    assert_eq!(sent(&out), pairs(&[("next", "a")]));
}

#[test]
fn a_nanny_that_never_confirms_holds_nothing_up_for_long() {
    let mut world = World::of(&["a"]);
    world.submit("t", &limited());
    world.submit("next", &plain());
    world.pass(LIMIT);
    world.interrupted("a", "t");
    let out = world.pass(STOP_GRACE);
    assert_eq!((errors(&out), sent(&out)), (pairs(&[("t", "RunTimeout")]), pairs(&[("next", "a")])));
    assert!(signals(&out).is_empty());
}

#[test]
fn what_does_not_heed_an_interrupt_ends_with_its_engine() {
    let mut world = World::of(&["a"]);
    world.submit("t", &limited());
    let first = signal(&world.pass(LIMIT));
    world.confirm(&first);
    let second = signal(&world.pass(STOP_GRACE));
    let third = signal(&world.pass(STOP_GRACE));
    assert_eq!((first.1, second.1, third.1), (2, 15, 9));
    assert!(signals(&world.pass(STOP_GRACE)).is_empty(), "there is nothing stronger");
    world.leave("a");
    let out = world.pass(TaskConfig::GRACE);
    assert_eq!(errors(&out), pairs(&[("t", "RunTimeout")]));
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_task_that_ran_for_too_long_is_tried_elsewhere_if_it_has_retries() {
    let mut world = World::of(&["a", "b"]);
    let on = engine(&world.submit("t", &json!({"retries": 1, "remuda": {"run_timeout": 7}})));
    let interrupt = signal(&world.pass(LIMIT));
    world.confirm(&interrupt);
    let out = world.interrupted(&on, "t");
    let other = engine(&out);
    assert_ne!(on, other);
    assert_eq!(signal(&world.pass(LIMIT)).0, other, "its time runs anew");
}

#[test]
fn a_task_that_somebody_wants_to_end_is_interrupted_and_not_tried_again() {
    let mut world = World::of(&["a", "b"]);
    let on = engine(&world.submit("t", &json!({"retries": 5})));
    let interrupt = signal(&world.abort_or_stop(&["t"], true));
    assert_eq!(interrupt.0, on);
    assert!(signals(&world.abort_or_stop(&["t"], true)).is_empty(), "once is enough");
    world.confirm(&interrupt);
    assert_eq!(errors(&world.interrupted(&on, "t")), pairs(&[("t", "TaskStopped")]));
    assert!(signals(&world.abort_or_stop(&["t", "unknown"], true)).is_empty());
}

#[test]
fn a_native_engine_sees_to_it_and_what_it_stopped_is_not_tried_again() {
    let mut world = World::of(&[]);
    world.register("a", native(&[]));
    world.register("b", native(&[]));
    let content = json!({"remuda": {"process": {"argv": ["sleep"]}}});
    let metadata = json!({"retries": 1, "remuda": {"run_timeout": 7}});
    let on = engine(&world.submit_body(world.request("t", "apply_request", &metadata, &content)));
    assert!(signals(&world.pass(LIMIT)).is_empty());
    assert!(signals(&world.abort_or_stop(&["t"], true)).is_empty());
    let said = told(&world.answer(&on, "t", "error"));
    assert_eq!(said[0].status, "error");
    assert!(world.scheduler.is_idle());
}

#[test]
fn time_counts_from_where_a_task_has_its_turn() {
    let mut world = World::with(Scheme::LeastLoad, 2);
    world.join("a");
    world.submit("first", &plain());
    world.submit("t", &limited());
    assert!(signals(&world.pass(LIMIT)).is_empty(), "it waits behind another");
    world.answer("a", "first", "ok");
    assert_eq!(signal(&world.pass(LIMIT)).0, "a");
}

#[test]
fn an_engine_that_leaves_takes_the_time_with_it() {
    let mut world = World::of(&["a"]);
    world.submit("t", &limited());
    world.leave("a");
    let out = world.pass(TaskConfig::GRACE);
    assert_eq!(errors(&out), pairs(&[("t", "EngineError")]));
    assert!(signals(&out).is_empty() && world.scheduler.is_idle());
}

#[test]
fn a_task_that_had_just_ended_well_when_somebody_wanted_it_to_end_has_ended_well() {
    let mut world = World::of(&["a"]);
    world.submit("t", &plain());
    let interrupt = signal(&world.abort_or_stop(&["t"], true));
    assert!(told(&world.answer("a", "t", "ok")).is_empty(), "the signal may still come");
    assert_eq!(told(&world.confirm(&interrupt))[0].status, "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_signal_never_hits_a_task_that_runs_in_front_of_the_one_that_is_to_end() {
    let mut world = World::with(Scheme::LeastLoad, 3);
    world.join("a");
    // All at one moment, and under numbers that were used before: the order of sending is in neither.
    for id in ["x", "y", "z"] {
        world.submit(id, &plain());
    }
    for id in ["x", "y", "z"] {
        world.answer("a", id, "ok");
    }
    world.submit("first", &limited());
    world.submit("second", &plain());
    world.submit("third", &limited());
    assert!(signals(&world.abort_or_stop(&["second"], true)).is_empty(), "the engine itself aborts what waits there");
    let out = world.pass(LIMIT);
    let interrupt = signal(&out);
    world.confirm(&interrupt);
    assert_eq!(errors(&world.interrupted("a", "first")), pairs(&[("first", "RunTimeout")]));
    assert_eq!(signals(&world.abort_or_stop(&["third"], true)), []);
    assert_eq!(signal(&world.abort_or_stop(&["second"], true)).1, 2, "now it is the one that runs");
}
