//! Named scenarios: stories on the machinery of the simulator, whose checkers watch them all.

use std::time::Duration;

use remuda_sim::parameters::Kind;
use remuda_sim::{Job, Scenario};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn a_stranded_task_is_retried_elsewhere_if_it_may_be() {
    let mut story = Scenario::default();
    let [first] = story.engines([Kind::Stock]);
    let patient = story.submit(&Job::python(s(60)).retries(1));
    story.run_for(ms(100));
    let [second] = story.engines([Kind::Stock]);
    let plain = story.submit(&Job::python(s(60)));
    story.run_for(ms(100));
    assert_eq!((story.tried(&patient), story.tried(&plain)), (vec![first], vec![second]));

    story.kill(first);
    story.kill(second);
    let [third] = story.engines([Kind::Stock]);
    story.run_for(s(4));
    assert_eq!(story.reply(&plain).as_deref(), Some("EngineError"));
    assert_eq!(story.tried(&patient), [first, third]);
    story.run_for(s(60));
    assert_eq!(story.reply(&patient).as_deref(), Some("ok"));
    story.settle();
}

#[test]
fn a_dead_engine_without_a_nanny_is_missed_by_its_heart() {
    let mut story = Scenario::default();
    let [engine] = story.engines([Kind::Native]);
    let task = story.submit(&Job::program(s(60)));
    story.run_for(ms(100));
    story.kill_silently(engine);
    story.run_for(s(3));
    assert!(story.is_registered(engine), "three beats may be missed");
    story.run_for(s(3));
    assert!(!story.is_registered(engine));
    assert_eq!(story.reply(&task), None, "the grace time is not over");
    story.run_for(s(5));
    assert_eq!(story.reply(&task).as_deref(), Some("EngineError"));
    story.settle();
}

#[test]
fn a_late_reply_within_the_grace_time_counts() {
    let mut story = Scenario::default();
    let [engine] = story.engines([Kind::Stock]);
    let task = story.submit(&Job::python(ms(500)));
    story.run_for(ms(100));
    story.freeze(engine);
    story.run_for(s(6));
    assert!(!story.is_registered(engine), "its heart stood still");
    story.thaw(engine);
    story.run_for(s(1));
    assert_eq!(story.reply(&task).as_deref(), Some("ok"));
    story.settle();
}

#[test]
fn a_late_reply_after_the_grace_time_is_nobodys() {
    let mut story = Scenario::default();
    let [engine] = story.engines([Kind::Stock]);
    let task = story.submit(&Job::python(ms(500)));
    story.run_for(ms(100));
    story.freeze(engine);
    story.run_for(s(15));
    assert_eq!(story.reply(&task).as_deref(), Some("EngineError"));
    story.thaw(engine);
    story.run_for(s(1));
    assert_eq!(story.reply(&task).as_deref(), Some("EngineError"), "and the checkers saw no second reply");
    story.settle();
}

#[test]
fn in_a_mixed_cluster_each_task_goes_where_it_can_run() {
    let mut story = Scenario::new(|parameters| parameters.hwm = 10);
    let [stock, native, alpha] = story.engines([Kind::Stock, Kind::Native, Kind::OneFunction]);
    let python = story.submit(&Job::python(ms(10)));
    let program = story.submit(&Job::program(ms(10)));
    let beta = story.submit(&Job::function("beta", ms(10)));
    let alphas: Vec<_> = (0..6).map(|_| story.submit(&Job::function("alpha", ms(10)))).collect();
    let nobodys = story.submit(&Job::function("omega", ms(10)).timeout(ms(300)));
    story.run_for(s(1));
    assert_eq!(story.tried(&python), [stock]);
    assert_eq!(story.tried(&program), [native]);
    assert_eq!(story.tried(&beta), [native]);
    assert!(alphas.iter().any(|task| story.tried(task) == [alpha]));
    for task in alphas.iter().chain([&python, &program, &beta]) {
        assert_eq!(story.reply(task).as_deref(), Some("ok"), "{task}");
    }
    assert_eq!(story.tried(&nobodys), []);
    assert_eq!(story.reply(&nobodys).as_deref(), Some("TaskTimeout"));
    story.settle();
}

#[test]
fn a_task_that_waits_is_aborted_at_once_and_one_that_runs_is_not() {
    let mut story = Scenario::default();
    story.engines([Kind::Stock]);
    let running = story.submit(&Job::python(s(5)));
    let queued = story.submit(&Job::python(ms(1)));
    let waiting = story.submit(&Job::python(ms(1)).after(&[&running]));
    story.run_for(ms(100));
    story.abort(&[&running, &queued, &waiting]);
    story.run_for(ms(100));
    assert_eq!(story.reply(&queued).as_deref(), Some("aborted"));
    assert_eq!(story.reply(&waiting).as_deref(), Some("aborted"));
    assert_eq!(story.reply(&running), None);
    story.run_for(s(5));
    assert_eq!(story.reply(&running).as_deref(), Some("ok"));
    story.settle();
}

#[test]
fn a_task_that_fails_everywhere_gets_its_last_error_and_fails_those_that_wait_for_it() {
    let mut story = Scenario::default();
    let engines = story.engines([Kind::Stock, Kind::Stock, Kind::Stock]);
    let failing = story.submit(&Job::python(ms(10)).failing().retries(2));
    let waiting = story.submit(&Job::python(ms(10)).after(&[&failing]));
    story.run_for(s(1));
    let mut tried = story.tried(&failing);
    tried.sort_unstable_by_key(|engine| format!("{engine:?}"));
    assert_eq!(tried, engines);
    assert_eq!(story.reply(&failing).as_deref(), Some("ValueError"));
    assert_eq!(story.reply(&waiting).as_deref(), Some("ImpossibleDependency"));
    story.settle();
}

#[test]
fn a_task_that_follows_another_to_an_engine_that_is_gone_is_told_so() {
    let mut story = Scenario::default();
    let [first, second] = story.engines([Kind::Stock, Kind::Stock]);
    let led = story.submit(&Job::python(ms(10)));
    story.run_for(ms(200));
    let place = story.tried(&led)[0];
    let follower = story.submit(&Job::python(ms(10)).follow(&[&led]));
    story.run_for(ms(200));
    assert_eq!(story.tried(&follower), [place]);
    story.kill(if place == first { first } else { second });
    story.run_for(ms(200));
    let late = story.submit(&Job::python(ms(10)).follow(&[&led]));
    story.run_for(ms(200));
    assert_eq!(story.reply(&late).as_deref(), Some("ImpossibleDependency"));
    story.settle();
}

#[test]
fn a_direct_request_to_an_engine_that_left_is_answered() {
    let mut story = Scenario::default();
    let [engine] = story.engines([Kind::Native]);
    let first = story.direct(engine);
    story.run_for(s(1));
    assert!(story.reply(&first).is_some());
    story.kill(engine);
    story.run_for(s(1));
    let second = story.direct(engine);
    story.run_for(s(1));
    assert_eq!(story.reply(&second).as_deref(), Some("IndexError"));
    story.settle();
}

#[test]
fn a_controller_that_stood_still_drops_no_engine_and_loses_no_task() {
    let mut story = Scenario::default();
    let [first, second] = story.engines([Kind::Stock, Kind::Native]);
    let short = story.submit(&Job::python(ms(100)));
    let program = story.submit(&Job::program(s(60)));
    story.run_for(ms(50));
    // An engine that is about to register when it happens.
    let third = story.start(Kind::Stock);
    story.run_for(ms(20));
    story.stop_controller(s(40));
    story.run_for(s(39));
    assert_eq!(story.reply(&short), None, "nobody takes it from the engine");
    story.run_for(s(6));
    assert_eq!(story.reply(&short).as_deref(), Some("ok"));
    assert_eq!(story.reply(&program), None);
    for engine in [first, second, third] {
        assert!(story.is_registered(engine), "{engine:?}");
    }
    story.run_for(s(20));
    assert_eq!(story.reply(&program).as_deref(), Some("ok"));
    story.settle();
}

#[test]
fn an_engine_that_comes_back_under_its_uuid_gets_tasks_once_it_is_connected_and_not_before() {
    let mut story = Scenario::default();
    let [engine] = story.engines([Kind::Stock]);
    // Answers of its heart wait for the controller while it ends and starts again.
    story.stop_controller(s(3));
    story.run_for(s(1));
    story.kill(engine);
    story.run_for(ms(500));
    let again = story.start_again(engine);
    let task = story.submit(&Job::python(ms(10)));
    story.run_for(s(6));
    assert_eq!(story.tried(&task), [again]);
    assert_eq!(story.reply(&task).as_deref(), Some("ok"));
    story.settle();
}

#[test]
fn a_broadcast_is_answered_in_one_with_what_each_engine_said() {
    let mut story = Scenario::default();
    let engines = story.engines([Kind::Stock; 3]);
    let all = story.coalesce(&engines);
    story.run_for(s(1));
    assert_eq!((story.reply(&all).as_deref(), story.buffers(&all)), (Some("ok"), Some(3)));
    story.kill(engines[1]);
    story.run_for(s(1));
    let fewer = story.coalesce(&engines);
    story.run_for(s(1));
    assert_eq!(story.reply(&fewer).as_deref(), Some("IndexError"));
    story.settle();
}

#[test]
fn a_task_that_the_hub_repeats_has_a_life_of_its_own() {
    let mut story = Scenario::default();
    story.engines([Kind::Stock, Kind::Stock]);
    let task = story.submit(&Job::python(ms(10)));
    story.run_for(s(1));
    story.resubmit(&[&task]);
    story.run_for(s(1));
    let [first, again] = story.tasks() else { panic!("{:?}", story.tasks()) };
    assert_eq!(*first, task);
    assert_eq!(story.tried(again).len(), 1);
    assert_eq!(story.reply(again), None, "its reply is for who asks the hub");
    story.settle();
}

#[test]
fn a_client_that_reads_nothing_gets_all_that_came_when_it_reads() {
    let mut story = Scenario::new(|parameters| parameters.hwm = 10);
    story.engines([Kind::Stock]);
    story.deafen();
    let tasks: Vec<_> = (0..50).map(|_| story.submit(&Job::python(ms(10)))).collect();
    story.run_for(s(5));
    assert!(tasks.iter().all(|task| story.reply(task).is_none()));
    assert!(tasks.iter().all(|task| story.tried(task).len() == 1), "they ran all the same");
    story.read();
    assert!(tasks.iter().all(|task| story.reply(task).as_deref() == Some("ok")));
    story.settle();
}
