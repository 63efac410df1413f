//! Services are started again, as their policy says.

use remuda_proto::message::story::{AttemptEnd, Known, LiveTask, TaskState};

use super::*;

const FIRST: Duration = Duration::from_millis(100);

/// A service that is started again after 100 ms, then 200 ms, then 250 ms at most; from the start after 10 s that went well.
fn service(policy: &str, limit: Option<u32>) -> Value {
    let restart =
        json!({"policy": policy, "limit": limit, "backoff_ms": 100, "max_backoff_ms": 250, "reset_after_ms": 10_000});
    json!({"remuda": {"restart": restart}})
}

impl World {
    /// A native engine that runs programs.
    fn programs(&mut self, uuid: &str) -> Vec<TaskEffect> {
        self.register(uuid, native(&[]))
    }

    fn start(&mut self, msg_id: &str, metadata: &Value) -> Vec<TaskEffect> {
        let content = json!({"remuda": {"process": {"argv": ["true"]}}});
        self.submit_body(self.request(msg_id, "apply_request", metadata, &content))
    }

    fn look(&mut self, msg_id: &str) -> LiveTask {
        let out = self.handle(TaskEvent::Explain { question: 1, msg_ids: vec![msg_id.into()], whole: false });
        let [TaskEffect::Monitor(Monitor::Explained(explanation))] = &out[..] else { panic!("{out:?}") };
        let Known::Live(live) = &explanation.tasks[0] else { panic!("{explanation:?}") };
        (**live).clone()
    }

    fn stopped(&mut self, engine: &str, msg_id: &str) -> Vec<TaskEffect> {
        let content = json!({"status": "error", "ename": "TaskStopped", "evalue": "", "traceback": []});
        let body = self.result(msg_id, &json!({"status": "error", "dependencies_met": true}), &content);
        self.answer_body(engine, body)
    }

    /// How long the service that has just ended waits for its next start, to the millisecond; it is started by that.
    fn pause(&mut self) -> Duration {
        for ms in 1..10_000 {
            if !sent(&self.pass(Duration::from_millis(1))).is_empty() {
                return Duration::from_millis(ms);
            }
        }
        panic!("it is not started again");
    }
}

/// The attempt that a request says it is.
fn attempt(out: &[TaskEffect]) -> u64 {
    let body =
        out.iter().find_map(|effect| if let TaskEffect::ToEngine { body, .. } = effect { Some(body) } else { None });
    let metadata: Value = serde_json::from_slice(body.unwrap().metadata()).unwrap();
    metadata["remuda"]["attempt"].as_u64().unwrap_or(1)
}

#[test]
fn each_policy_says_after_which_ends_it_is_started_again() {
    for (policy, status, again) in [
        ("never", "ok", false),
        ("never", "error", false),
        ("on-failure", "ok", false),
        ("on-failure", "error", true),
        ("always", "ok", true),
        ("always", "error", true),
        ("always", "aborted", false),
    ] {
        let mut world = World::of(&[]);
        world.programs("a");
        assert_eq!(engine(&world.start("t", &service(policy, None))), "a");
        let out = world.answer("a", "t", status);
        if again {
            assert!(told(&out).is_empty() && sent(&out).is_empty(), "{policy}, {status}: {out:?}");
            assert_eq!((world.counts(), world.load("a")), ((1, 0, 0), 0), "it holds no engine");
            let out = world.pass(FIRST);
            assert_eq!((engine(&out), attempt(&out)), ("a".to_owned(), 2), "{policy}, {status}");
        } else {
            assert_eq!(told(&out)[0].status, status, "{policy}");
            assert!(world.scheduler.is_idle());
        }
    }
}

#[test]
fn it_is_started_again_so_often_and_no_more() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("on-failure", Some(2)));
    for number in [2, 3] {
        assert!(told(&world.answer("a", "t", "error")).is_empty());
        let out = world.pass(FIRST * 3);
        assert_eq!(attempt(&out), number);
    }
    assert_eq!(world.look("t").retries_left, 0);
    let out = world.answer("a", "t", "error");
    assert_eq!((told(&out).len(), world.scheduler.is_idle()), (1, true));
    let attempts = out.iter().find_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Attempts { attempts, tried, .. }) => Some((attempts.len(), *tried)),
        _ => None,
    });
    assert_eq!(attempts, Some((3, 3)));
}

#[test]
fn pauses_double_up_to_the_longest_and_start_over_once_it_ran_well() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    let mut pauses = Vec::new();
    for (ran_s, status) in [(0, "error"), (0, "ok"), (9, "error"), (0, "error"), (10, "error"), (0, "error")] {
        world.now.instant = world.now.instant + Duration::from_secs(ran_s);
        world.answer("a", "t", status);
        pauses.push(u64::try_from(world.pause().as_millis()).unwrap());
    }
    assert_eq!(pauses, [100, 200, 250, 250, 100, 200]);
}

#[test]
fn what_it_is_doing_can_be_seen() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", Some(5)));
    world.answer("a", "t", "ok");
    let live = world.look("t");
    let TaskState::BackingOff(backing_off) = live.state else { panic!("{live:?}") };
    assert_eq!(backing_off.until.0 - backing_off.since.0, 100_000);
    assert_eq!((live.retries_left, live.tried, &live.attempts[0].end), (4, 1, &AttemptEnd::Succeeded));
}

#[test]
fn the_end_of_its_engine_moves_it_and_does_not_count() {
    for policy in ["never", "on-failure"] {
        let mut world = World::of(&[]);
        world.programs("a");
        world.start("t", &service(policy, Some(0)));
        world.programs("b");
        world.leave("a");
        let out = world.pass(TaskConfig::GRACE);
        assert_eq!((sent(&out), attempt(&out)), (pairs(&[("t", "b")]), 2), "{policy}");
        assert_eq!(world.look("t").attempts[0].end, AttemptEnd::Died);
        // No other is there: it waits for one.
        world.leave("b");
        assert!(told(&world.pass(TaskConfig::GRACE)).is_empty());
        assert_eq!(world.counts(), (0, 1, 0));
        assert_eq!(engine(&world.programs("c")), "c");
        assert_eq!(told(&world.answer("c", "t", "error")).len(), 1, "there was no restart left from the first on");
    }
}

#[test]
fn an_engine_that_does_not_read_is_not_the_end_of_it() {
    let mut world = World::of(&[]);
    world.programs("a");
    let out = world.start("t", &service("never", Some(1)));
    let Some(TaskEffect::ToEngine { engine, body, .. }) =
        out.into_iter().find(|effect| matches!(effect, TaskEffect::ToEngine { .. }))
    else {
        panic!()
    };
    world.handle(TaskEvent::Undelivered { engine, body });
    assert_eq!(world.look("t").retries_left, 1);
    assert_eq!(sent(&world.pass(FIRST)), pairs(&[("t", "a")]));
}

#[test]
fn an_engine_that_cannot_run_it_is_left_at_once() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("never", Some(1)));
    world.programs("b");
    assert_eq!(engine(&world.unmet("a", "t")), "b");
    assert_eq!(world.look("t").retries_left, 1);
}

#[test]
fn one_that_is_stopped_is_not_started_again_wherever_it_is() {
    // It waits for an engine.
    let mut world = World::of(&[]);
    world.start("t", &service("always", None));
    assert_eq!(told(&world.abort_or_stop(&["t"], true))[0].status, "aborted");
    assert!(world.scheduler.is_idle());
    // It runs: what comes next is its end, whatever that is.
    for status in ["ok", "error"] {
        let mut world = World::of(&[]);
        world.programs("a");
        world.start("t", &service("always", None));
        assert!(told(&world.abort_or_stop(&["t"], true)).is_empty());
        assert_eq!(told(&world.answer("a", "t", status))[0].status, status);
        assert!(world.scheduler.is_idle());
    }
    // The engine's word that it was stopped comes before that of the client.
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    assert_eq!(errors(&world.stopped("a", "t")), pairs(&[("t", "TaskStopped")]));
    // It backs off.
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    world.answer("a", "t", "error");
    assert_eq!(told(&world.abort_or_stop(&["t"], true))[0].status, "aborted");
    assert!(sent(&world.pass(FIRST)).is_empty() && world.scheduler.is_idle());
    // Its engine is gone before it was stopped there.
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    world.programs("b");
    world.abort_or_stop(&["t"], true);
    world.leave("a");
    let out = world.pass(TaskConfig::GRACE);
    assert_eq!((errors(&out), sent(&out).len()), (pairs(&[("t", "TaskStopped")]), 0));
}

#[test]
fn word_of_an_attempt_that_is_over_changes_nothing() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    world.answer("a", "t", "error");
    let out = world.answer("a", "t", "ok");
    assert!(told(&out).is_empty() && matches!(refusals(&out)[..], [Refusal::Unexpected(_)]), "{out:?}");
    assert_eq!(sent(&world.pass(FIRST)), pairs(&[("t", "a")]));
}

#[test]
fn others_run_meanwhile_and_it_goes_where_there_is_room() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    world.start("other", &plain());
    assert_eq!(sent(&world.answer("a", "t", "error")), pairs(&[("other", "a")]));
    assert!(sent(&world.pass(FIRST)).is_empty());
    assert_eq!(world.counts(), (0, 1, 1));
    assert_eq!(sent(&world.programs("b")), pairs(&[("t", "b")]));
    world.answer("b", "t", "error");
    assert!(sent(&world.answer("a", "other", "ok")).is_empty());
    assert_eq!(sent(&world.pass(FIRST * 2)).len(), 1);
}

#[test]
fn what_is_kept_of_attempts_does_not_grow() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("always", None));
    for number in 2..60 {
        world.answer("a", "t", "error");
        assert_eq!(attempt(&world.pass(FIRST * 3)), number);
    }
    let live = world.look("t");
    assert_eq!((live.tried, live.attempts.len()), (58, 16));
    world.abort_or_stop(&["t"], true);
    world.answer("a", "t", "error");
    world.leave("a");
    assert!(world.scheduler.is_idle());
}

#[test]
fn one_that_waits_for_others_waits_once() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("first", &plain());
    let mut metadata = service("always", None);
    metadata["after"] = json!(["first"]);
    assert!(sent(&world.start("t", &metadata)).is_empty());
    assert_eq!(sent(&world.answer("a", "first", "ok")), pairs(&[("t", "a")]));
    world.answer("a", "t", "ok");
    assert_eq!(sent(&world.pass(FIRST)), pairs(&[("t", "a")]));
}

#[test]
fn one_that_runs_for_too_long_has_failed() {
    let mut world = World::of(&[]);
    world.programs("a");
    world.start("t", &service("on-failure", None));
    let content = json!({"status": "error", "ename": "RunTimeout", "evalue": "", "traceback": []});
    let body = world.result("t", &json!({"status": "error", "dependencies_met": true}), &content);
    assert!(told(&world.answer_body("a", body)).is_empty());
    assert_eq!(sent(&world.pass(FIRST)), pairs(&[("t", "a")]));
}

#[test]
fn a_policy_that_makes_no_sense_is_answered() {
    let mut world = World::of(&[]);
    let out = world.start("t", &json!({"remuda": {"restart": {"policy": "sometimes"}}}));
    assert_eq!(errors(&out), pairs(&[("t", "ValueError")]));
}
