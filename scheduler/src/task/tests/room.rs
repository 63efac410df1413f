//! Slots, resources, labels and priorities.

use remuda_proto::message::needs::{Amount, Resources};

use super::*;

/// An engine that runs programs: so many at once, with so many GPUs.
fn machine(slots: u32, gpus: u32, labels: &[&str]) -> Capability {
    let gpus = Amount::whole(gpus).map(|gpus| ("gpu".into(), gpus));
    Capability::native(&Announcement {
        process: true,
        slots,
        resources: Resources::from_iter(gpus),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..Announcement::default()
    })
}

impl World {
    /// A program that asks for this.
    fn program(&mut self, msg_id: &str, extras: &Value) -> Vec<TaskEffect> {
        self.program_with(msg_id, &json!({"remuda": extras}))
    }

    fn program_with(&mut self, msg_id: &str, metadata: &Value) -> Vec<TaskEffect> {
        let content = json!({"remuda": {"process": {"argv": ["true"]}}});
        self.submit_body(self.request(msg_id, "apply_request", metadata, &content))
    }

    fn needs(&mut self, msg_id: &str, needs: &Value) -> Vec<(String, String)> {
        sent(&self.program(msg_id, &json!({"needs": needs})))
    }
}

/// Both slots of engine `a` are taken, and `large`, which takes two, waits.
fn full_with_a_large_one() -> World {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(2, 0, &[]));
    world.program("1", &plain());
    world.program("2", &plain());
    world.needs("large", &json!({"cpus": 2}));
    world
}

#[test]
fn an_engine_gets_as_many_tasks_as_it_has_slots_times_hwm() {
    for hwm in [1, 2] {
        let mut world = World::with(Scheme::LeastLoad, hwm);
        world.register("a", machine(3, 0, &[]));
        for task in 0..10 {
            world.program(&task.to_string(), &plain());
        }
        assert_eq!(world.load("a"), 3 * hwm as usize);
        assert_eq!(sent(&world.answer("a", "1", "ok")).len(), 1);
    }
}

#[test]
fn the_least_load_is_that_of_the_engine_with_most_slots_left_for_its_size() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("small", machine(2, 0, &[]));
    world.register("large", machine(4, 0, &[]));
    let went: Vec<String> = (0..6).map(|task| engine(&world.program(&task.to_string(), &plain()))).collect();
    assert_eq!(went.iter().filter(|engine| *engine == "large").count(), 4);
    assert_eq!(went[..3].iter().filter(|engine| *engine == "small").count(), 1, "{went:?}");
}

#[test]
fn what_a_task_takes_is_never_more_than_there_is() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(4, 1, &[]));
    assert_eq!(world.needs("1", &json!({"cpus": 3})), pairs(&[("1", "a")]));
    assert_eq!(world.needs("2", &json!({"cpus": 2})), pairs(&[]), "one slot is left");
    assert_eq!(
        world.needs("3", &json!({"gpu": 1})),
        pairs(&[("3", "a")]),
        "nothing is kept before an engine frees something"
    );
    assert_eq!(world.needs("4", &json!({"gpu": 1})), pairs(&[]));
    assert_eq!(sent(&world.answer("a", "3", "ok")), pairs(&[]), "a slot is kept for task 2, which came first");
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[("2", "a"), ("4", "a")]));
}

#[test]
fn a_large_task_is_not_starved_by_small_ones_and_holds_up_one_engine_only() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(2, 0, &[]));
    world.register("b", machine(2, 0, &[]));
    let mut on: BTreeMap<String, String> =
        (0..4).flat_map(|task| sent(&world.program(&format!("first-{task}"), &plain()))).collect();
    assert_eq!(world.needs("large", &json!({"cpus": 2})), pairs(&[]));
    for task in 0..10 {
        world.program(&format!("later-{task}"), &plain());
    }
    let mut log = Vec::new();
    for _ in 0..4 {
        // One small task ends on each engine in turn.
        for engine in ["a", "b"] {
            let Some(task) =
                on.iter().find(|(task, on)| *on == engine && *task != "large").map(|(task, _)| task.clone())
            else {
                continue;
            };
            on.remove(&task);
            let went = sent(&world.answer(engine, &task, "ok"));
            on.extend(went.clone());
            log.extend(went);
        }
    }
    let large = log.iter().position(|(task, _)| task == "large").expect("it has its turn");
    assert!(large <= 2, "{log:?}");
    let (_, held_up) = log[large].clone();
    assert!(log[..large].iter().all(|(_, engine)| *engine != held_up), "{log:?}");
    assert!(
        log.iter().filter(|(task, engine)| task.starts_with("later") && *engine != held_up).count() >= 3,
        "{log:?}"
    );
}

#[test]
fn what_is_kept_for_one_resource_leaves_the_others_to_all() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(4, 1, &[]));
    assert_eq!(world.needs("gpu-1", &json!({"gpu": 1})), pairs(&[("gpu-1", "a")]));
    world.needs("gpu-2", &json!({"gpu": 1}));
    world.program("small", &plain());
    world.answer("a", "small", "ok");
    // From now on a slot is kept for `gpu-2`, beside that of `gpu-1`; two are left.
    let went: Vec<usize> = (0..4).map(|task| sent(&world.program(&format!("s{task}"), &plain())).len()).collect();
    assert_eq!(went, [1, 1, 0, 0]);
    assert_eq!(sent(&world.answer("a", "gpu-1", "ok")), pairs(&[("gpu-2", "a"), ("s2", "a")]));
}

#[test]
fn what_was_kept_for_a_task_is_for_others_once_that_is_gone() {
    let mut world = full_with_a_large_one();
    world.program("3", &plain());
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[]));
    assert_eq!(sent(&world.abort(&["large"])), pairs(&[("3", "a")]));
}

#[test]
fn a_task_for_which_room_is_kept_here_runs_elsewhere_if_that_is_sooner() {
    let mut world = full_with_a_large_one();
    world.program("3", &plain());
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[]), "it is kept for the large one");
    assert_eq!(sent(&world.register("b", machine(2, 0, &[]))), pairs(&[("large", "b"), ("3", "a")]));
}

#[test]
fn parts_of_a_core_add_up() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(1, 0, &[]));
    let went: Vec<usize> = (0..5).map(|task| world.needs(&task.to_string(), &json!({"cpus": 0.25})).len()).collect();
    assert_eq!(went, [1, 1, 1, 1, 0]);
}

#[test]
fn a_task_waits_for_an_engine_that_has_what_it_asks_for_or_fails_if_it_would_rather() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(4, 0, &["big"]));
    for (id, needs) in [("1", json!({"cpus": 5})), ("2", json!({"gpu": 1})), ("3", json!({"label": ["big", "red"]}))] {
        assert_eq!(world.needs(id, &needs), pairs(&[]));
        let failed = world.program(&format!("{id}!"), &json!({"needs": needs, "fail_unplaceable": true}));
        assert_eq!(errors(&failed), pairs(&[(&format!("{id}!"), "Unplaceable")]));
    }
    assert_eq!(
        sent(&world.program("4", &json!({"needs": {"label": "big"}, "fail_unplaceable": true}))),
        pairs(&[("4", "a")])
    );
    assert_eq!(
        sent(&world.register("b", machine(8, 1, &["red", "big"]))),
        pairs(&[("1", "b"), ("2", "b"), ("3", "b")])
    );
}

#[test]
fn a_higher_priority_comes_first_and_waiting_raises_it() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.join("a");
    let submit = |world: &mut World, id: &str, priority: i32| {
        world.submit(id, &json!({"remuda": {"priority": priority}}));
    };
    submit(&mut world, "runs", 0);
    submit(&mut world, "low", -2);
    submit(&mut world, "first", 0);
    submit(&mut world, "second", 0);
    submit(&mut world, "high", 3);
    world.pass(TaskConfig::PRIORITY_AGE * 2);
    submit(&mut world, "new", 1);
    submit(&mut world, "newest", 9);
    let mut order = vec!["runs".to_owned()];
    while let Some((next, _)) = sent(&world.answer("a", &order[order.len() - 1].clone(), "ok")).pop() {
        order.push(next);
    }
    assert_eq!(order, ["runs", "newest", "high", "first", "second", "new", "low"]);
}

#[test]
fn a_task_that_is_tried_again_keeps_its_priority() {
    let mut world = World::of(&["a"]);
    world.submit("runs", &json!({"retries": 1, "remuda": {"priority": 5}}));
    world.submit("other", &plain());
    assert_eq!(sent(&world.answer("a", "runs", "error")), pairs(&[("other", "a")]), "it is for another engine");
    world.submit("more", &plain());
    assert_eq!(sent(&world.join("b")), pairs(&[("runs", "b")]));
}

#[test]
fn of_tasks_whose_engines_died_the_urgent_go_first_whichever_engine_it_was() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.join("a");
    world.submit("dull", &json!({"retries": 1}));
    world.join("b");
    world.submit("urgent", &json!({"retries": 1, "remuda": {"priority": 5}}));
    world.leave("a");
    world.leave("b");
    world.join("c");
    assert_eq!(sent(&world.pass(TaskConfig::GRACE)), pairs(&[("urgent", "c")]));
    assert_eq!(sent(&world.join("d")), pairs(&[("dull", "d")]));
}

#[test]
fn a_task_that_became_ready_waits_behind_those_before_it_wherever_something_became_free() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(4, 0, &[]));
    world.needs("big", &json!({"cpus": 3}));
    world.program("one", &plain());
    world.register("b", machine(1, 0, &[]));
    world.needs("half", &json!({"cpus": 0.5}));
    world.needs("other", &json!({"cpus": 0.5}));
    world.program("first", &plain());
    world.program("second", &plain());
    world.program_with("third", &json!({"after": ["big"]}));
    assert_eq!(sent(&world.answer("b", "half", "ok")), pairs(&[]), "what is left of `b` is kept for `first`");
    // `first` goes to `a`, which ends that: now something is free on both.
    let went = sent(&world.answer("a", "big", "ok"));
    assert_eq!(went, pairs(&[("first", "a"), ("second", "a"), ("third", "a")]));
}

#[test]
fn what_an_engine_had_before_it_left_takes_nothing_of_what_it_comes_back_with() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(2, 0, &[]));
    world.program("1", &json!({"retries": 1}));
    world.program("2", &json!({"retries": 1}));
    world.leave("a");
    world.register("a", machine(1, 0, &[]));
    assert_eq!(sent(&world.program("3", &plain())), pairs(&[("3", "a")]));
    assert_eq!(sent(&world.program("4", &plain())), pairs(&[]));
    assert_eq!(sent(&world.pass(TaskConfig::GRACE)), pairs(&[]), "they are for another engine");
}

#[test]
fn an_urgent_task_takes_what_is_kept_for_one_that_is_less_so() {
    let mut world = full_with_a_large_one();
    world.answer("a", "1", "ok");
    assert_eq!(sent(&world.program("later", &plain())), pairs(&[]));
    assert_eq!(sent(&world.program("urgent", &json!({"priority": 1}))), pairs(&[("urgent", "a")]));
}

#[test]
fn a_task_may_be_tried_again_where_it_failed_if_it_says_so_and_its_engine_knows_which_attempt_it_is() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    world.register("a", machine(1, 0, &[]));
    world.program_with("t", &json!({"retries": 2, "remuda": {"retry_anywhere": true}}));
    for attempt in [2, 3] {
        let out = world.answer("a", "t", "error");
        assert_eq!(sent(&out), pairs(&[("t", "a")]));
        let body = out.iter().find_map(|effect| match effect {
            TaskEffect::ToEngine { body, .. } => Some(body.clone()),
            _ => None,
        });
        let metadata: Value = serde_json::from_slice(body.unwrap().metadata()).unwrap();
        assert_eq!(metadata["remuda"]["attempt"], json!(attempt));
        assert_eq!(metadata["remuda"]["retry_anywhere"], json!(true));
    }
    assert_eq!(told(&world.answer("a", "t", "error"))[0].status, "error");
    assert!(world.scheduler.is_idle());
}

#[test]
fn extras_that_make_no_sense_are_answered() {
    let mut world = World::of(&["a"]);
    for extras in [json!({"priority": "high"}), json!({"needs": {"cpus": 0}}), json!({"nedes": {}}), json!(3)] {
        let out = world.submit(&extras.to_string().replace('"', ""), &json!({"remuda": extras}));
        assert_eq!(told(&out)[0].ename, "ValueError", "{extras}");
    }
}
