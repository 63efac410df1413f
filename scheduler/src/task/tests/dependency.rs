//! `after` and `follow`.

use super::*;

/// A world with one engine that runs `live`, where `good` succeeded and `bad` failed.
fn history() -> World {
    let mut world = World::of(&["e"]);
    world.submit("good", &plain());
    world.answer("e", "good", "ok");
    world.submit("bad", &plain());
    world.answer("e", "bad", "error");
    world.submit("live", &plain());
    world
}

fn any(ids: &[&str]) -> Value {
    json!({"dependencies": ids, "all": false})
}

/// What becomes of a task at once: an error, or a wait for others or for room.
fn verdict(key: &str, dependency: &Value) -> String {
    let mut world = history();
    let out = world.submit("me", &json!({key: dependency}));
    if let Some(said) = told(&out).pop() {
        return said.ename;
    }
    match world.counts() {
        (1, 0, 1) => "waits".to_owned(),
        (0, 1, 1) => "ready".to_owned(),
        counts => panic!("{counts:?}"),
    }
}

#[test]
fn what_finished_tasks_say_to_a_dependency() {
    let failure = |ids: &[&str]| json!({"dependencies": ids, "success": false, "failure": true});
    let either = |ids: &[&str]| json!({"dependencies": ids, "failure": true});
    for key in ["after", "follow"] {
        for (dependency, expected) in [
            (json!([]), "ready"),
            (json!(["good"]), "ready"),
            (json!("good"), "ready"),
            (json!(["bad"]), "ImpossibleDependency"),
            (json!(["good", "bad"]), "ImpossibleDependency"),
            (json!(["live"]), "waits"),
            (json!(["good", "live"]), "waits"),
            (json!(["bad", "live"]), "ImpossibleDependency"),
            (any(&["bad", "live"]), "waits"),
            (any(&["good", "live"]), "ready"),
            (any(&["bad"]), "ImpossibleDependency"),
            (failure(&["bad"]), "ready"),
            (failure(&["good"]), "ImpossibleDependency"),
            (either(&["good", "bad"]), "ready"),
            (json!(["unknown"]), "InvalidDependency"),
            (json!(["me"]), "InvalidDependency"),
            (json!(["bad", "unknown"]), "InvalidDependency"),
        ] {
            assert_eq!(verdict(key, &dependency), expected, "{key} {dependency}");
        }
    }
    // What is met already may name what it likes, but for `follow`.
    assert_eq!(verdict("after", &any(&["good", "unknown", "me"])), "ready");
    assert_eq!(verdict("follow", &any(&["good", "unknown"])), "InvalidDependency");
}

#[test]
fn a_task_runs_after_all_it_waits_for() {
    let mut world = World::of(&["a", "b", "c"]);
    world.submit("1", &plain());
    world.submit("2", &plain());
    world.submit("3", &json!({"after": ["1", "2"]}));
    assert_eq!(world.counts(), (1, 0, 2));
    assert_eq!(sent(&world.answer("c", "1", "ok")), []);
    assert_eq!(sent(&world.answer("b", "2", "ok")), pairs(&[("3", "a")]));
}

#[test]
fn a_task_runs_after_any_and_does_not_care_for_the_rest() {
    let mut world = World::of(&["a", "b", "c"]);
    world.submit("1", &plain());
    world.submit("2", &plain());
    world.submit("3", &json!({"after": any(&["1", "2"])}));
    assert_eq!(sent(&world.answer("c", "1", "error")), []);
    assert_eq!(sent(&world.answer("b", "2", "ok")), pairs(&[("3", "a")]));
    world.submit("4", &plain());
    world.submit("5", &json!({"after": any(&["3", "4"])}));
    assert_eq!(sent(&world.answer("a", "3", "ok")).len(), 1);
    assert_eq!(told(&world.answer("b", "4", "error")).len() + told(&world.answer("c", "4", "error")).len(), 1);
    assert_eq!(world.counts(), (0, 0, 1));
}

#[test]
fn a_failure_reaches_all_that_wait_for_it() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"after": ["1"]}));
    world.submit("3", &json!({"after": ["2", "1"]}));
    world.submit("4", &json!({"follow": ["3"]}));
    world.submit("cleanup", &json!({"after": {"dependencies": ["3"], "success": false, "failure": true}}));
    let out = world.answer("e", "1", "error");
    let impossible = "ImpossibleDependency";
    assert_eq!(errors(&out), pairs(&[("1", ""), ("2", impossible), ("3", impossible), ("4", impossible)]));
    assert_eq!(sent(&out), pairs(&[("cleanup", "e")]));
}

#[test]
fn a_long_chain_fails_without_deep_recursion() {
    let mut world = World::of(&["e"]);
    let mut out = Vec::new();
    let mut metadata = plain();
    for task in 0..50_000 {
        let body = world.request(&task.to_string(), "apply_request", &metadata, &plain());
        world.scheduler.handle(world.now, TaskEvent::Submit { client: ident("c"), body }, &mut out);
        metadata = json!({"after": [task.to_string()]});
    }
    out.clear();
    let body = world.result("0", &json!({"status": "error"}), &json!({}));
    world.scheduler.handle(world.now, TaskEvent::Result { engine: ident("e"), client: ident("c"), body }, &mut out);
    let replies = out.iter().filter(|effect| matches!(effect, TaskEffect::ToClient { .. })).count();
    assert_eq!((replies, world.scheduler.is_idle()), (50_000, true));
}

#[test]
fn follow_shares_the_place() {
    let mut world = World::of(&["a", "b"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"follow": ["1"]}));
    // `a` is free, but it is not where 1 runs.
    assert_eq!(world.counts(), (1, 0, 1));
    assert_eq!(sent(&world.answer("b", "1", "ok")), pairs(&[("2", "b")]));
}

#[test]
fn one_cannot_follow_to_two_places_at_once() {
    let mut world = World::of(&["a", "b"]);
    for id in ["1", "2", "3"] {
        world.submit(id, &json!({"targets": [if id == "3" { "b" } else { "a" }]}));
    }
    world.submit("same", &json!({"follow": ["1", "2"]}));
    world.submit("apart", &json!({"follow": ["1", "3", "same"]}));
    world.answer("a", "1", "ok");
    let out = world.answer("b", "3", "ok");
    assert_eq!(errors(&out), pairs(&[("3", ""), ("apart", "ImpossibleDependency")]));
    assert_eq!(sent(&world.answer("a", "2", "ok")), pairs(&[("same", "a")]));
    // The same of tasks that finished before.
    let out = world.submit("late", &json!({"follow": ["1", "3"]}));
    assert_eq!(errors(&out), pairs(&[("late", "ImpossibleDependency")]));
}

#[test]
fn following_any_gains_places_as_tasks_finish() {
    let mut world = World::of(&["a", "b"]);
    world.submit("1", &json!({"targets": ["a"]}));
    world.submit("2", &json!({"targets": ["b"]}));
    world.submit("3", &json!({"targets": ["a"]}));
    world.submit("me", &json!({"follow": any(&["1", "2"])}));
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[("3", "a")]));
    assert_eq!(world.counts(), (0, 1, 2));
    assert_eq!(sent(&world.answer("b", "2", "ok")), pairs(&[("me", "b")]));
}

#[test]
fn a_task_that_ran_nowhere_is_no_place_to_follow_to() {
    let mut world = World::of(&["e"]);
    world.submit("busy", &plain());
    world.submit("lost", &json!({"timeout": 1}));
    let fails =
        |all: bool| json!({"follow": {"dependencies": ["lost"], "all": all, "success": false, "failure": true}});
    world.submit("all", &fails(true));
    world.submit("any", &fails(false));
    let out = world.pass(Duration::from_secs(1));
    let impossible = "ImpossibleDependency";
    assert_eq!(errors(&out), pairs(&[("lost", "TaskTimeout"), ("all", impossible), ("any", impossible)]));
}

#[test]
fn a_place_that_is_gone_is_impossible_to_follow_to() {
    let mut world = World::of(&["a", "b"]);
    world.submit("1", &json!({"targets": ["a"]}));
    world.submit("2", &json!({"targets": ["b"]}));
    world.submit("3", &json!({"targets": ["a"]}));
    world.submit("all", &json!({"follow": ["1"]}));
    world.submit("any", &json!({"follow": any(&["1", "2"])}));
    world.answer("a", "1", "ok");
    assert_eq!(world.counts(), (0, 2, 2));
    // `any` can still hope for 2.
    assert_eq!(errors(&world.leave("a")), pairs(&[("all", "ImpossibleDependency")]));
    assert_eq!(errors(&world.answer("b", "2", "error")), pairs(&[("2", ""), ("any", "ImpossibleDependency")]));
    assert_eq!(errors(&world.submit("late", &json!({"follow": ["1"]}))), pairs(&[("late", "ImpossibleDependency")]));
}

#[test]
fn follow_and_targets_have_to_agree() {
    let mut world = World::of(&["a", "b"]);
    world.submit("1", &json!({"targets": ["a"]}));
    world.submit("agrees", &json!({"follow": ["1"], "targets": ["a", "b"]}));
    world.submit("differs", &json!({"follow": ["1"], "targets": ["b"]}));
    let out = world.answer("a", "1", "ok");
    assert_eq!(errors(&out), pairs(&[("1", ""), ("differs", "ImpossibleDependency")]));
    assert_eq!(sent(&out), pairs(&[("agrees", "a")]));
}

#[test]
fn a_task_that_ends_early_is_no_burden_to_what_it_waited_for() {
    let mut world = World::of(&["e"]);
    world.submit("1", &plain());
    for round in 0..3 {
        world.submit(&format!("w{round}"), &json!({"after": ["1"], "timeout": 1}));
    }
    world.abort(&["w0"]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.scheduler.jobs.iter().map(|(_, job)| job.dependents().count()).sum::<usize>(), 0);
    world.answer("e", "1", "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn the_last_hope_may_go_in_the_event_that_took_the_place() {
    // `any` gets its first place from a late reply of an engine that is gone, and loses the task that might have given
    // it another by what that reply says to that one.
    let mut world = World::of(&["b", "a"]);
    world.submit("1", &json!({"targets": ["a"]}));
    world.submit("2", &json!({"after": {"dependencies": ["1"], "success": false, "failure": true}}));
    world.submit("any", &json!({"follow": any(&["1", "2"])}));
    world.submit("cleanup", &json!({"after": {"dependencies": ["any"], "success": false, "failure": true}}));
    world.leave("a");
    let out = world.answer("a", "1", "ok");
    let impossible = "ImpossibleDependency";
    assert_eq!(errors(&out), pairs(&[("1", ""), ("2", impossible), ("any", impossible)]));
    assert_eq!(sent(&out), pairs(&[("cleanup", "b")]));
}
