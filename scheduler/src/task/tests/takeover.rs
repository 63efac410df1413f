//! A controller that was started anew.

use remuda_proto::message::probe::ProbeContent;
use remuda_proto::message::story::{AttemptEnd, Known, TaskState, Why};
use remuda_proto::recovery::{FinishedTask, Recovered, Recovery};
use remuda_proto::{Envelope, MsgType};

use super::*;
use remuda_proto::monitor::Queue;

const REATTACH: Duration = TaskConfig::REATTACH;

/// What is on record of tasks.
struct Records {
    recovery: Recovery,
    signer: World,
}

impl Records {
    /// With these engines.
    fn of(engines: &[&str]) -> Self {
        let engines = engines.iter().map(|uuid| EngineUuid::from(*uuid)).collect();
        Self { recovery: Recovery { engines, ..Recovery::default() }, signer: World::new(TaskConfig::default()) }
    }

    /// A task that no engine had.
    fn task(self, msg_id: &str, metadata: &Value) -> Self {
        self.with(msg_id, metadata, |_| {})
    }

    /// A task that an engine had.
    fn on(self, msg_id: &str, engine: &str, metadata: &Value) -> Self {
        self.with(msg_id, metadata, |task| task.engine = Some(engine.into()))
    }

    fn with(mut self, msg_id: &str, metadata: &Value, change: impl FnOnce(&mut Recovered)) -> Self {
        let body = self.signer.request(msg_id, "apply_request", metadata, &json!({}));
        let retries = u32::try_from(metadata["retries"].as_u64().unwrap_or(0)).unwrap();
        let mut task = Recovered {
            queue: Queue::Task,
            client: Some(ident("c")),
            msg_id: msg_id.into(),
            body,
            engine: None,
            tried: Vec::new(),
            retries,
            waited: Duration::ZERO,
        };
        change(&mut task);
        self.recovery.tasks.push(task);
        self
    }

    fn finished(mut self, msg_id: &str, ok: bool, engine: &str) -> Self {
        self.recovery.finished.push(FinishedTask { msg_id: msg_id.into(), ok, engine: Some(engine.into()) });
        self
    }

    fn take_over(self) -> (World, Vec<TaskEffect>) {
        self.take_over_with(TaskConfig::default())
    }

    fn take_over_with(self, config: TaskConfig) -> (World, Vec<TaskEffect>) {
        let mut world = World::new(config);
        let out = world.handle(TaskEvent::Recover(Box::new(self.recovery)));
        (world, out)
    }
}

/// The engines that are asked what they have, and the tasks named.
fn asked(out: &[TaskEffect]) -> Vec<(String, Vec<String>)> {
    let asked = out.iter().filter_map(|effect| match effect {
        TaskEffect::ToEngine { engine, client, body } => {
            let content: ProbeContent = Packer::Json.unpack(body.content()).unwrap();
            let named = content.remuda?.assigned.iter().map(ToString::to_string).collect();
            assert_eq!(*client, ident("hub"));
            Some((engine.to_string(), named))
        }
        _ => None,
    });
    asked.collect()
}

impl World {
    /// An engine answers what it was asked last. `has`: as a native engine does.
    fn hear(&mut self, engine: &str, question: &[TaskEffect], has: Option<&[&str]>) -> Vec<TaskEffect> {
        let body = question.iter().find_map(|effect| match effect {
            TaskEffect::ToEngine { engine: to, body, .. } if *to == ident(engine) => Some(body),
            _ => None,
        });
        let asked = Envelope::read(Packer::Json, body.unwrap()).unwrap();
        assert_eq!(asked.msg_type, MsgType::KernelInfoRequest);
        let content = match has {
            None => json!({"status": "ok"}),
            Some(has) => json!({"status": "ok", "remuda": {"has": has}}),
        };
        let body = self.result(asked.msg_id.as_str(), &json!({}), &content);
        self.answer_body(engine, body)
    }

    /// A stock engine comes back, and has answered all that it owed.
    fn back(&mut self, engine: &str) -> Vec<TaskEffect> {
        let question = self.join(engine);
        self.hear(engine, &question, None)
    }
}

#[test]
fn a_task_that_an_engine_has_is_answered_by_it_and_by_no_other() {
    let (mut world, out) = Records::of(&["e"]).on("1", "e", &plain()).take_over();
    assert!(out.is_empty(), "{out:?}");
    assert_eq!(world.counts(), (0, 0, 1));
    assert_eq!(refusals(&world.answer("f", "1", "ok")), [Refusal::Unexpected("1".into())]);
    // Its reply may come before its heart is heard.
    let out = world.answer("e", "1", "ok");
    assert_eq!(monitored(&out), ["1 done by e"]);
    assert_eq!(told(&out)[0].engine, Some(ident("e")));
    world.back("e");
    assert!(world.scheduler.is_idle());
}

#[test]
fn what_a_stock_engine_does_not_answer_before_the_question_was_lost_and_it_may_get_it_again() {
    let records = Records::of(&["e"]).on("1", "e", &plain()).on("2", "e", &plain());
    let (mut world, _) = records.take_over_with(TaskConfig { hwm: 0, ..TaskConfig::default() });
    let question = world.join("e");
    assert_eq!(asked(&question), [("e".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
    // It gets nothing new before it has answered.
    assert!(sent(&world.submit("3", &plain())).is_empty());
    assert_eq!(monitored(&world.answer("e", "2", "ok")), ["2 done by e"]);
    let out = world.hear("e", &question, None);
    assert_eq!(sent(&out), pairs(&[("1", "e"), ("3", "e")]));
    // What is sent again is not what was sent before: an engine drops what it has had, by its signature.
    let TaskEffect::ToEngine { body, .. } = &out[0] else { panic!("{out:?}") };
    let before = world.request("1", "apply_request", &plain(), &plain());
    assert_ne!(body.signature(), before.signature());
    assert_eq!((body.header(), body.content()), (before.header(), before.content()));
    let explanation = world.handle(TaskEvent::Explain { question: 1, msg_ids: vec!["1".into()], whole: false });
    let [TaskEffect::Monitor(Monitor::Explained(told))] = &explanation[..] else { panic!("{explanation:?}") };
    let Known::Live(task) = &told.tasks[0] else { panic!("{told:?}") };
    assert_eq!((task.tried, &task.attempts[0].end), (1, &AttemptEnd::Lost));
    world.answer("e", "1", "ok");
    world.answer("e", "3", "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_native_engine_says_what_it_has_and_only_the_rest_is_lost() {
    let records = Records::of(&["e", "f"]).on("1", "e", &plain()).on("2", "e", &plain()).task("3", &plain());
    let (mut world, _) = records.take_over_with(TaskConfig { hwm: 0, ..TaskConfig::default() });
    world.back("f");
    let capable = native(&[]);
    // The need of these tasks is Python, so that a native engine is not asked about held ones.
    let question = world.register("e", capable);
    assert_eq!(asked(&question), [("e".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
    // It names one that no engine had on record: from now on it has it.
    let out = world.hear("e", &question, Some(&["2", "3"]));
    assert_eq!(sent(&out), pairs(&[("1", "f")]));
    assert_eq!(monitored(&out), ["3 to e", "1 to f"]);
    assert_eq!(monitored(&world.answer("e", "3", "ok")), ["3 done by e"]);
    assert_eq!(refusals(&world.answer("f", "2", "ok")), [Refusal::Unexpected("2".into())]);
}

#[test]
fn a_native_engine_is_asked_about_held_tasks_that_it_could_run() {
    let mut records = Records::of(&["e"]);
    let body = records.signer.request("p", "apply_request", &plain(), &json!({"remuda": {"process": {"argv": ["x"]}}}));
    records = records.with("p", &plain(), |task| task.body = body).task("python", &plain());
    let (mut world, _) = records.take_over();
    let question = world.register("e", native(&[]));
    assert_eq!(asked(&question), [("e".to_owned(), vec!["p".to_owned()])]);
    // The result that it held comes first; it makes the task its own.
    assert_eq!(monitored(&world.answer("e", "p", "ok")), ["p to e", "p done by e"]);
    assert!(sent(&world.hear("e", &question, Some(&[]))).is_empty());
    assert_eq!(sent(&world.join("new")), pairs(&[("python", "new")]));
}

#[test]
fn an_engine_that_has_a_task_is_believed_more_than_records_that_say_that_another_one_has_it() {
    let (mut world, _) = Records::of(&["a", "b"]).on("1", "a", &plain()).on("2", "a", &plain()).take_over();
    let question = world.register("b", Capability { process: true, ..Capability::stock() });
    assert_eq!(monitored(&world.hear("b", &question, Some(&["1"]))), ["1 to b"]);
    assert_eq!(monitored(&world.answer("b", "2", "ok")), ["2 to b", "2 done by b"]);
    assert!(sent(&world.back("a")).is_empty());
    assert_eq!(refusals(&world.answer("a", "1", "ok")), [Refusal::Unexpected("1".into())]);
    assert_eq!(monitored(&world.answer("b", "1", "ok")), ["1 done by b"]);
    assert!(world.scheduler.is_idle());
}

#[test]
fn tasks_are_held_until_every_engine_has_answered_and_then_go_in_order() {
    let records = Records::of(&["a", "b"]).task("1", &plain()).task("2", &plain()).task("3", &plain());
    let (mut world, _) = records.take_over();
    assert_eq!(world.counts(), (0, 3, 0));
    assert!(sent(&world.back("a")).is_empty());
    // New ones are placed as always.
    assert_eq!(sent(&world.submit("new", &plain())), pairs(&[("new", "a")]));
    let explanation = world.handle(TaskEvent::Explain { question: 1, msg_ids: vec!["1".into()], whole: false });
    let [TaskEffect::Monitor(Monitor::Explained(told))] = &explanation[..] else { panic!("{explanation:?}") };
    let Known::Live(task) = &told.tasks[0] else { panic!("{told:?}") };
    let TaskState::Ready(ready) = &task.state else { panic!("{task:?}") };
    assert_eq!((ready.obstacles[0].why, ready.obstacles[0].engines), (Why::Unheard, 1));
    assert_eq!(sent(&world.back("b")), pairs(&[("1", "b")]));
    assert_eq!(sent(&world.answer("a", "new", "ok")), pairs(&[("2", "a")]));
    assert_eq!(sent(&world.answer("a", "2", "ok")), pairs(&[("3", "a")]));
}

#[test]
fn an_engine_that_does_not_come_back_is_given_up_and_its_task_is_tried_elsewhere_whatever_its_retries() {
    let records = Records::of(&["gone", "e"]).on("1", "gone", &plain()).task("2", &plain());
    let (mut world, _) = records.take_over_with(TaskConfig { hwm: 0, ..TaskConfig::default() });
    assert!(sent(&world.back("e")).is_empty());
    assert!(world.pass(REATTACH.saturating_sub(Duration::from_millis(1))).is_empty());
    let out = world.pass(Duration::from_millis(1));
    let mut went = sent(&out);
    went.sort();
    assert_eq!(went, pairs(&[("1", "e"), ("2", "e")]));
    // Its result comes too late, and is not the task's.
    assert_eq!(refusals(&world.answer("gone", "1", "ok")), [Refusal::Unexpected("1".into())]);
    assert_eq!(world.counts(), (0, 0, 2));
}

#[test]
fn a_result_counts_as_long_as_the_task_was_not_sent_again() {
    let records = Records::of(&["gone"]).on("1", "gone", &plain()).task("2", &plain());
    let (mut world, _) = records.take_over();
    world.pass(REATTACH);
    assert_eq!(world.counts(), (0, 2, 0));
    assert_eq!(monitored(&world.answer("gone", "1", "ok")), ["1 to gone", "1 done by gone"]);
    assert_eq!(monitored(&world.answer("gone", "2", "ok")), ["2 to gone", "2 done by gone"]);
}

#[test]
fn an_engine_that_is_busy_is_waited_for_and_asked_again_at_growing_intervals() {
    let (mut world, _) = Records::of(&["e"]).on("1", "e", &plain()).take_over();
    let question = world.join("e");
    let mut times = Vec::new();
    for second in 1..=200 {
        if !asked(&world.pass(Duration::from_secs(1))).is_empty() {
            times.push(second);
        }
    }
    assert_eq!(times, [1, 3, 7, 15, 31, 63, 123, 183]);
    assert_eq!(world.counts(), (0, 0, 1));
    assert_eq!(monitored(&world.answer("e", "1", "ok")), ["1 done by e"]);
    world.hear("e", &question, None);
    assert_eq!(world.scheduler.engine_count(), 1);
    assert_eq!(world.scheduler.deadline(), None);
}

#[test]
fn an_engine_that_comes_back_and_dies_before_it_answers_died_with_its_tasks() {
    let records = Records::of(&["e"]).on("1", "e", &plain()).on("2", "e", &json!({"retries": 1}));
    let (mut world, _) = records.take_over_with(TaskConfig { hwm: 0, ..TaskConfig::default() });
    world.join("e");
    world.leave("e");
    let out = world.pass(TaskConfig::GRACE);
    assert_eq!(errors(&out), pairs(&[("1", "EngineError")]));
    assert_eq!(sent(&world.join("f")), pairs(&[("2", "f")]));
}

#[test]
fn engines_that_tried_it_do_not_get_it_again_and_retries_go_on_where_they_were() {
    let records = Records::of(&["a"]).with("1", &json!({"retries": 5}), |task| {
        (task.tried, task.retries) = (vec!["a".into()], 1);
    });
    let (mut world, _) = records.take_over();
    assert!(sent(&world.back("a")).is_empty());
    // A late reply of the attempt that ended is none of this one.
    assert_eq!(refusals(&world.answer("a", "1", "error")), [Refusal::Unexpected("1".into())]);
    assert_eq!(sent(&world.join("b")), pairs(&[("1", "b")]));
    let out = world.answer("b", "1", "error");
    let requeued = |effect: &TaskEffect| matches!(effect, TaskEffect::Monitor(Monitor::Requeued { msg_id, retries: 0 }) if msg_id.as_str() == "1");
    assert!(out.iter().any(requeued), "{out:?}");
    assert_eq!(sent(&world.join("c")), pairs(&[("1", "c")]));
    assert_eq!(told(&world.answer("c", "1", "error")).len(), 1);
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_task_waits_for_others_as_before() {
    let records = Records::of(&["e"])
        .finished("ok", true, "e")
        .finished("bad", false, "e")
        .on("0", "e", &plain())
        .task("1", &json!({"after": ["ok", "0"]}))
        .task("2", &json!({"after": ["bad"]}))
        .task("3", &json!({"after": ["never"]}))
        .task("4", &json!({"follow": ["ok"]}));
    let (mut world, out) = records.take_over();
    assert_eq!(errors(&out), pairs(&[("2", "ImpossibleDependency"), ("3", "InvalidDependency")]));
    assert_eq!(world.counts(), (1, 1, 1));
    let question = world.join("e");
    world.answer("e", "0", "ok");
    assert_eq!(world.counts(), (0, 2, 0));
    assert_eq!(sent(&world.hear("e", &question, None)), pairs(&[("1", "e")]));
    assert_eq!(sent(&world.answer("e", "1", "ok")), pairs(&[("4", "e")]));
}

#[test]
fn a_task_that_ran_before_the_records_say_so_counts_all_the_same() {
    // That `0` ended was not on record yet, nor that `1` was sent.
    let records = Records::of(&["e"]).on("0", "e", &plain()).task("1", &json!({"after": ["0"], "follow": ["0"]}));
    let (mut world, _) = records.take_over();
    assert_eq!(monitored(&world.answer("e", "1", "ok")), ["1 to e", "1 done by e"]);
    let question = world.join("e");
    assert_eq!(sent(&world.hear("e", &question, None)), pairs(&[("0", "e")]));
}

#[test]
fn a_lost_task_that_follows_others_stays_where_it_was_if_records_do_not_tell_where_they_ran() {
    let records = Records::of(&["a", "b"]).on("1", "a", &json!({"follow": ["long ago"], "targets": ["a", "b"]}));
    let (mut world, _) = records.take_over();
    world.back("b");
    assert_eq!(sent(&world.back("a")), pairs(&[("1", "a")]));
}

#[test]
fn the_time_that_a_task_waited_counts_and_one_whose_time_was_over_ends_at_once() {
    let seconds = Duration::from_secs;
    let timeout = json!({"timeout": 10.0});
    let records =
        Records::of(&["e"])
            .with("1", &timeout, |task| task.waited = seconds(7))
            .with("2", &timeout, |task| task.waited = seconds(11));
    let (mut world, _) = records.take_over();
    assert_eq!(errors(&world.pass(Duration::ZERO)), pairs(&[("2", "TaskTimeout")]));
    assert!(world.pass(Duration::from_millis(2_999)).is_empty());
    assert_eq!(errors(&world.pass(Duration::from_millis(1))), pairs(&[("1", "TaskTimeout")]));
}

#[test]
fn a_new_task_for_an_engine_that_is_to_come_back_waits_for_it() {
    let (mut world, _) = Records::of(&["a", "b"]).take_over();
    let for_a = json!({"targets": ["a"], "timeout": 100.0});
    assert!(errors(&world.submit("1", &for_a)).is_empty());
    assert!(errors(&world.submit("2", &json!({"targets": ["b"]}))).is_empty());
    assert_eq!(errors(&world.submit("3", &json!({"targets": ["other"]}))), pairs(&[("3", "ImpossibleDependency")]));
    assert_eq!(sent(&world.back("a")), pairs(&[("1", "a")]));
    assert_eq!(errors(&world.pass(REATTACH)), pairs(&[("2", "ImpossibleDependency")]));
    // One that is back and busy is there, however long it takes.
    let (mut world, _) = Records::of(&["a"]).take_over();
    let question = world.join("a");
    world.submit("1", &for_a);
    assert!(errors(&world.pass(REATTACH)).is_empty());
    assert_eq!(sent(&world.hear("a", &question, None)), pairs(&[("1", "a")]));
    let (mut world, _) = Records::of(&["a"]).take_over();
    world.join("a");
    world.submit("1", &for_a);
    assert_eq!(errors(&world.leave("a")), pairs(&[("1", "ImpossibleDependency")]));
    // Another that may run it is new, and asked for nothing.
    let (mut world, _) = Records::of(&["a"]).take_over();
    world.submit("1", &json!({"targets": ["a", "new"]}));
    assert_eq!(sent(&world.join("new")), pairs(&[("1", "new")]));
}

#[test]
fn held_tasks_can_be_aborted() {
    let (mut world, _) = Records::of(&["e"]).task("1", &plain()).task("2", &plain()).take_over();
    let out = world.abort(&["1"]);
    assert_eq!(told(&out)[0].status, "aborted");
    assert_eq!(sent(&world.back("e")), pairs(&[("2", "e")]));
}

#[test]
fn without_engines_there_is_nothing_to_wait_for() {
    let (mut world, out) = Records::of(&[]).task("1", &plain()).take_over();
    assert!(out.is_empty() && world.scheduler.deadline().is_none());
    assert_eq!(sent(&world.join("e")), pairs(&[("1", "e")]));
}

#[test]
fn an_earlier_controller_may_have_given_an_engine_more_than_this_one_would() {
    let records = Records::of(&["e"]).on("1", "e", &plain()).on("2", "e", &plain()).task("3", &plain());
    let (mut world, _) = records.take_over();
    let question = world.join("e");
    assert!(sent(&world.hear("e", &question, Some(&["1", "2"]))).is_empty());
    assert!(sent(&world.answer("e", "1", "ok")).is_empty());
    assert_eq!(sent(&world.answer("e", "2", "ok")), pairs(&[("3", "e")]));
}

#[test]
fn without_logic_what_was_lost_is_sent_again_too() {
    let records = Records::of(&["e"]).on("1", "e", &plain()).task("2", &json!({"after": ["never"]}));
    let (mut world, _) = records.take_over_with(TaskConfig { scheme: Scheme::Pure, ..TaskConfig::default() });
    let mut went = sent(&world.back("e"));
    went.sort();
    assert_eq!(went, pairs(&[("1", "e"), ("2", "e")]));
    world.answer("e", "1", "ok");
    world.answer("e", "2", "ok");
    assert!(world.scheduler.is_idle());
}

#[test]
fn records_that_contradict_themselves_are_refused_and_harm_nobody() {
    let mut records = Records::of(&["e", "e"]).finished("1", true, "e").finished("1", false, "f");
    let nonsense = records.signer.request("other", "apply_request", &plain(), &plain());
    records = records
        .task("1", &plain())
        .with("2", &plain(), |task| task.body = nonsense)
        .with("3", &json!({"retries": 1}), |task| {
            (task.engine, task.tried) = (Some("e".into()), vec!["e".into(), "e".into()]);
        })
        .task("4", &json!({"targets": "e"}));
    let (mut world, out) = records.take_over();
    assert_eq!(refusals(&out).len(), 2);
    assert_eq!(errors(&out), pairs(&[("4", "ValueError")]));
    assert!(sent(&world.back("e")).contains(&("3".to_owned(), "e".to_owned())));
    assert!(sent(&world.answer("e", "3", "error")).is_empty());
    assert_eq!(sent(&world.join("f")), pairs(&[("3", "f")]));
}

#[test]
fn an_engine_that_was_away_when_the_controller_died_is_asked_if_it_has_a_task() {
    let (mut world, _) = Records::of(&[]).on("1", "e", &plain()).take_over();
    let question = world.join("e");
    assert_eq!(asked(&question), [("e".to_owned(), vec!["1".to_owned()])]);
    assert!(sent(&world.pass(REATTACH)).iter().all(|(id, _)| id != "1"), "it is back, and takes its time");
    assert_eq!(sent(&world.hear("e", &question, None)), pairs(&[("1", "e")]));
}

/// A service on record, which may be started again five times, has used up one of these, and failed on `a` then.
fn service_on_record(engine: Option<&str>) -> Records {
    let metadata = json!({"remuda": {"restart": {"policy": "always", "limit": 5, "backoff_ms": 100}}});
    let records = Records::of(&["a", "b"]);
    let content = json!({"remuda": {"process": {"argv": ["true"]}}});
    let body = records.signer.request("t", "apply_request", &metadata, &content);
    records.with("t", &metadata, |task| {
        task.body = body;
        (task.engine, task.tried, task.retries) = (engine.map(EngineUuid::from), vec!["a".into()], 4);
    })
}

#[test]
fn a_service_that_runs_goes_on_and_is_started_again_when_it_ends() {
    let (mut world, _) = service_on_record(Some("a")).take_over();
    let question = world.register("a", native(&[]));
    assert!(sent(&world.hear("a", &question, Some(&["t"]))).is_empty(), "it runs");
    let question = world.register("b", native(&[]));
    assert!(sent(&world.hear("b", &question, Some(&[]))).is_empty());
    assert!(told(&world.answer("a", "t", "error")).is_empty());
    let out = world.pass(Duration::from_millis(100));
    assert_eq!(sent(&out).len(), 1);
    let TaskEffect::ToEngine { body, .. } = &out[0] else { panic!("{out:?}") };
    let metadata: Value = serde_json::from_slice(body.metadata()).unwrap();
    assert!(metadata["remuda"]["attempt"].as_u64() >= Some(3), "an engine may hold the reply of any before");
    // Three more, and that is all.
    let mut to = engine(&out);
    for _ in 0..3 {
        assert!(told(&world.answer(&to, "t", "error")).is_empty());
        to = engine(&world.pass(Duration::from_secs(60)));
    }
    assert_eq!(told(&world.answer(&to, "t", "error")).len(), 1);
}

#[test]
fn a_service_whose_engine_does_not_have_it_is_started_again_and_that_does_not_count() {
    let (mut world, _) = service_on_record(Some("a")).take_over();
    let question = world.register("a", native(&[]));
    let out = world.hear("a", &question, Some(&[]));
    // It is held until the other was heard, and may go to the same one again.
    assert!(sent(&out).is_empty());
    let question = world.register("b", native(&[]));
    assert_eq!(asked(&question)[0].1, Vec::<String>::new(), "what it holds is of an attempt before");
    assert_eq!(sent(&world.hear("b", &question, Some(&[]))).len(), 1);
}

#[test]
fn a_service_between_two_attempts_is_started_once_all_were_heard() {
    let (mut world, out) = service_on_record(None).take_over();
    assert!(sent(&out).is_empty(), "an engine may have it");
    let question = world.register("a", native(&[]));
    assert_eq!(asked(&question)[0].1, Vec::<String>::new(), "what it holds is of an attempt before");
    assert!(sent(&world.hear("a", &question, Some(&[]))).is_empty());
    let question = world.register("b", native(&[]));
    assert_eq!(sent(&world.hear("b", &question, Some(&[]))).len(), 1);
    assert_eq!(world.counts(), (0, 0, 1));
}

#[test]
fn a_service_that_was_begun_after_what_is_on_record_is_not_begun_twice() {
    let (mut world, _) = service_on_record(None).take_over();
    let question = world.register("b", native(&[]));
    assert!(sent(&world.hear("b", &question, Some(&["t"]))).is_empty(), "it runs there");
    let question = world.register("a", native(&[]));
    assert!(sent(&world.hear("a", &question, Some(&[]))).is_empty());
    assert_eq!((world.counts(), world.load("b")), ((0, 0, 1), 1));
}

#[test]
fn an_engine_that_gets_no_more_tasks_gets_none_when_it_was_heard_either() {
    for again in [false, true] {
        let (mut world, _) = Records::of(&["e"]).on("1", "e", &plain()).task("2", &plain()).take_over();
        let mut question = world.join("e");
        world.handle(TaskEvent::Drain { uuid: "e".into(), request: Some(4) });
        if again {
            question = world.pass(crate::probe::FIRST_PAUSE);
        }
        let out = world.hear("e", &question, Some(&["1"]));
        assert_eq!(sent(&out), []);
        let out = world.answer("e", "1", "ok");
        assert_eq!(sent(&out), []);
        let word = Monitor::Drained { engine: "e".into(), request: 4 };
        assert!(
            out.iter().any(
                |effect| matches!(effect, TaskEffect::Monitor(seen) if format!("{seen:?}") == format!("{word:?}"))
            )
        );
    }
}
