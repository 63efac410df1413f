//! Which engine gets which task.

use super::*;

#[test]
fn leastload_takes_the_smallest_load_and_then_the_line() {
    let mut world = World::with(Scheme::LeastLoad, 0);
    world.join("a");
    world.join("b");
    // A new engine is at the front.
    assert_eq!(engine(&world.submit("1", &plain())), "b");
    assert_eq!(engine(&world.submit("2", &plain())), "a");
    assert_eq!(engine(&world.submit("3", &plain())), "b");
    world.answer("b", "1", "ok");
    world.answer("b", "3", "ok");
    assert_eq!((world.load("a"), world.load("b")), (1, 0));
    assert_eq!(engine(&world.submit("4", &plain())), "b");
    // Equal loads: a was used longer ago.
    assert_eq!(engine(&world.submit("5", &plain())), "a");
}

#[test]
fn lru_takes_the_front_of_the_line_whatever_the_load() {
    let mut world = World::with(Scheme::Lru, 3);
    world.join("a");
    world.join("b");
    let went: Vec<String> = ["1", "2", "3", "4"].iter().map(|id| engine(&world.submit(id, &plain()))).collect();
    assert_eq!(went, ["b", "a", "b", "a"]);
    // An end moves nobody in line.
    world.answer("a", "2", "ok");
    world.answer("a", "4", "ok");
    assert_eq!(engine(&world.submit("5", &plain())), "b");
    assert_eq!(engine(&world.submit("6", &plain())), "a");
    // A full engine is passed over.
    assert_eq!(engine(&world.submit("7", &plain())), "a");
    assert_eq!(world.load("b"), 3);
}

/// How often each of the engines `0`, `1`, .. is chosen, in 4,000 tasks.
///
/// Method: with `hwm` 0, loads are set by tasks that name their target; then plain tasks are placed and answered one by
/// one, so that the loads stay as they were set.
fn chosen(scheme: Scheme, loads: &[usize], metadata: &Value) -> Vec<usize> {
    let mut world = World::with(scheme, 0);
    for (at, load) in loads.iter().enumerate() {
        world.join(&at.to_string());
        for task in 0..*load {
            world.submit(&format!("load-{at}-{task}"), &json!({"targets": [at.to_string()]}));
        }
    }
    let mut chosen = vec![0; loads.len()];
    for task in 0..4000 {
        let id = task.to_string();
        let mut out = Vec::new();
        let body = world.request(&id, "apply_request", metadata, &plain());
        world.scheduler.handle(world.now, TaskEvent::Submit { client: ident("c"), body }, &mut out);
        let engine = engine(&out);
        chosen[engine.parse::<usize>().unwrap()] += 1;
        let body = world.result(&id, &json!({"status": "ok"}), &json!({}));
        let result = TaskEvent::Result { engine: ident(&engine), client: ident("c"), body };
        world.scheduler.handle(world.now, result, &mut out);
    }
    world.scheduler.check();
    chosen
}

/// Whether each share of 4,000 is within five standard deviations of what it should be.
fn assert_shares(chosen: &[usize], shares: &[f64]) {
    for (count, share) in chosen.iter().zip(shares) {
        let (mean, deviation) = (4000.0 * share, (4000.0 * share * (1.0 - share)).sqrt());
        assert!((*count as f64 - mean).abs() <= 5.0 * deviation, "{chosen:?} are not {shares:?} of 4000");
    }
}

/// Plain tasks, and tasks that name all engines, so that both ways of choosing are seen.
fn both_ways() -> [Value; 2] {
    [plain(), json!({"targets": ["0", "1", "2", "3"]})]
}

#[test]
fn plainrandom_is_uniform() {
    for metadata in both_ways() {
        assert_shares(&chosen(Scheme::PlainRandom, &[5, 0, 1, 0], &metadata), &[0.25; 4]);
    }
}

#[test]
fn weighted_prefers_the_lighter_of_two_draws() {
    // Weights 1, 1/2, 1/2, 1/4, so shares 4, 2, 2, 1 of 9. An engine is chosen when both draws fall on it or on heavier
    // ones; of two equal ones the first draw stands.
    let ninth = |parts: f64| parts / 9.0;
    let heaviest = ninth(1.0) * ninth(1.0);
    let middle = (ninth(5.0) * ninth(5.0) - heaviest) / 2.0;
    let lightest = 1.0 - ninth(5.0) * ninth(5.0);
    for metadata in both_ways() {
        let chosen = chosen(Scheme::Weighted, &[1, 2, 2, 4], &metadata);
        assert_shares(&chosen, &[lightest, middle, middle, heaviest]);
    }
    // An engine with nothing to do outweighs all that have something.
    let free = chosen(Scheme::Weighted, &[1, 0, 3, 2], &plain());
    assert!(free[1] >= 3990, "{free:?}");
}

#[test]
fn twobin_takes_the_one_nearer_the_front() {
    // Of four in line, the places are drawn with 7, 5, 3 and 1 chances of 16. The engine that was chosen goes to the end,
    // so what shows is how often an engine is chosen again at once: 1 in 16.
    for metadata in both_ways() {
        let mut world = World::with(Scheme::TwoBin, 0);
        (0..4).for_each(|at| drop(world.join(&at.to_string())));
        let mut line = vec![3, 2, 1, 0];
        let mut places = vec![0; 4];
        for task in 0..4000 {
            let mut out = Vec::new();
            let body = world.request(&task.to_string(), "apply_request", &metadata, &plain());
            world.scheduler.handle(world.now, TaskEvent::Submit { client: ident("c"), body }, &mut out);
            let engine = engine(&out).parse::<usize>().unwrap();
            let place = line.iter().position(|other| *other == engine).unwrap();
            places[place] += 1;
            line.remove(place);
            line.push(engine);
        }
        world.scheduler.check();
        assert_shares(&places, &[7.0 / 16.0, 5.0 / 16.0, 3.0 / 16.0, 1.0 / 16.0]);
    }
}

#[test]
fn draws_are_the_same_for_the_same_seed() {
    let draws = |seed: u64| {
        let config = TaskConfig { scheme: Scheme::PlainRandom, hwm: 0, seed, ..TaskConfig::default() };
        let mut world = World::new(config);
        (0..5).for_each(|at| drop(world.join(&at.to_string())));
        (0..20).map(|task| engine(&world.submit(&task.to_string(), &plain()))).collect::<Vec<_>>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}

#[test]
fn random_schemes_pass_over_engines_that_tried_or_are_full() {
    for scheme in [Scheme::PlainRandom, Scheme::TwoBin, Scheme::Weighted] {
        let mut world = World::with(scheme, 1);
        ["a", "b", "c"].iter().for_each(|uuid| drop(world.join(uuid)));
        let first = engine(&world.submit("1", &plain()));
        let second = engine(&world.unmet(&first, "1"));
        let third = engine(&world.unmet(&second, "1"));
        let mut tried = [first, second, third.clone()];
        tried.sort_unstable();
        assert_eq!(tried, ["a", "b", "c"], "{scheme}");
        world.submit("2", &plain());
        world.submit("3", &plain());
        assert_eq!(world.counts(), (0, 0, 3), "{scheme}");
        assert_eq!(sent(&world.unmet(&third, "1")), []);
        assert_eq!(world.load(&third), 0, "{scheme}");
        // Leaving and coming back keeps the weights in order.
        world.leave("b");
        world.join("d");
        assert_eq!(world.load("d"), 1, "{scheme}");
    }
}

#[test]
fn the_limit_of_an_engine_holds() {
    let mut world = World::with(Scheme::LeastLoad, 2);
    world.join("e");
    for id in ["1", "2", "3", "4"] {
        world.submit(id, &plain());
    }
    assert_eq!((world.load("e"), world.counts()), (2, (0, 2, 2)));
    assert_eq!(sent(&world.answer("e", "2", "ok")), pairs(&[("3", "e")]));
    assert_eq!(world.load("e"), 2);
}

#[test]
fn without_a_limit_nothing_waits_for_room() {
    let mut world = World::with(Scheme::LeastLoad, 0);
    world.submit("0", &plain());
    assert_eq!(sent(&world.join("e")), pairs(&[("0", "e")]));
    for id in 1..50 {
        assert_eq!(engine(&world.submit(&id.to_string(), &plain())), "e");
    }
    assert_eq!(world.load("e"), 50);
}

#[test]
fn without_a_limit_a_task_that_waited_is_not_run_again() {
    // What stock does: wire reference, 13, item 33.
    let mut world = World::with(Scheme::LeastLoad, 0);
    world.join("e");
    world.submit("a", &plain());
    world.submit("b", &json!({"after": ["a"]}));
    assert_eq!(sent(&world.answer("e", "a", "ok")), pairs(&[("b", "e")]));
    assert_eq!(sent(&world.join("f")), []);
}

#[test]
fn tasks_keep_the_order_of_their_submission() {
    let mut world = World::of(&["e"]);
    world.submit("first", &plain());
    world.submit("a", &plain());
    world.submit("b", &json!({"targets": ["e"]}));
    world.submit("c", &json!({"after": ["first"]}));
    world.submit("d", &json!({"follow": ["first"]}));
    world.submit("f", &plain());
    let mut order = Vec::new();
    let mut running = "first".to_owned();
    while let [(next, _)] = &sent(&world.answer("e", &running, "ok"))[..] {
        order.push(next.clone());
        running.clone_from(next);
    }
    assert_eq!(order, ["a", "b", "c", "d", "f"]);
}

#[test]
fn a_task_goes_only_to_its_targets() {
    let mut world = World::of(&["a", "b", "c"]);
    assert_eq!(engine(&world.submit("1", &json!({"targets": ["a", "nobody", "a"]}))), "a");
    assert_eq!(sent(&world.submit("2", &json!({"targets": ["a", "nobody"]}))), []);
    assert_eq!(world.counts(), (0, 1, 1));
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[("2", "a")]));
}

#[test]
fn targets_that_are_not_there_are_impossible() {
    let mut world = World::of(&["a"]);
    let out = world.submit("1", &json!({"targets": ["x", "y"]}));
    assert_eq!(errors(&out), pairs(&[("1", "ImpossibleDependency")]));
    assert_eq!(monitored(&out), ["request 1", "1 failed by nobody"]);
    assert!(world.scheduler.is_idle());
    assert_eq!(world.scheduler.engines.iter().count(), 1);
}

#[test]
fn a_target_that_leaves_makes_its_ready_tasks_impossible() {
    let mut world = World::of(&["a", "b"]);
    world.submit("1", &json!({"targets": ["a"]}));
    world.submit("both", &json!({"targets": ["a", "b"], "retries": 1}));
    world.submit("3", &json!({"targets": ["a"]}));
    world.submit("4", &json!({"targets": ["a", "b"]}));
    assert_eq!(errors(&world.leave("a")), pairs(&[("3", "ImpossibleDependency")]));
    assert_eq!(world.counts(), (0, 1, 2));
    // An engine of that name that joins takes what is left for it.
    assert_eq!(sent(&world.join("a")), []);
    assert_eq!(world.load("a"), 1);
    assert_eq!(sent(&world.answer("a", "1", "ok")), pairs(&[("4", "a")]));
}

#[test]
fn a_target_that_joins_later_is_used() {
    let mut world = World::of(&["a"]);
    world.submit("1", &plain());
    world.submit("2", &json!({"targets": ["a", "late"]}));
    assert_eq!(sent(&world.join("other")), []);
    assert_eq!(sent(&world.join("late")), pairs(&[("2", "late")]));
}

#[test]
fn a_task_goes_only_where_it_can_run() {
    let mut world = World::of(&["python"]);
    world.register("mul", native(&["mul"]));
    world.register("both", native(&["mul", "div"]));
    let native_task =
        |world: &World, id: &str, task: Value| world.request(id, "apply_request", &plain(), &json!({"remuda": task}));
    let body = native_task(&world, "1", json!({"function": "div"}));
    assert_eq!(engine(&world.submit_body(body)), "both");
    let body = native_task(&world, "2", json!({"process": {"argv": ["ls"]}}));
    assert_eq!(engine(&world.submit_body(body)), "mul");
    assert_eq!(engine(&world.submit("3", &plain())), "python");
    for (id, task) in [("4", "div"), ("5", "mul"), ("6", "sqrt")] {
        let body = native_task(&world, id, json!({"function": task}));
        assert_eq!(sent(&world.submit_body(body)), []);
    }
    assert_eq!(world.counts(), (0, 3, 3));
    assert_eq!(sent(&world.answer("python", "3", "ok")), []);
    // Across needs, too, the older task goes first.
    assert_eq!(sent(&world.answer("both", "1", "ok")), pairs(&[("4", "both")]));
    assert_eq!(sent(&world.answer("both", "4", "ok")), pairs(&[("5", "both")]));
    assert_eq!(sent(&world.register("sqrt", native(&["sqrt"]))), pairs(&[("6", "sqrt")]));
}

#[test]
fn a_target_that_cannot_run_the_task_is_none() {
    let mut world = World::of(&["python"]);
    let content = json!({"remuda": {"function": "mul"}});
    let body = world.request("1", "apply_request", &json!({"targets": ["python"]}), &content);
    assert_eq!(errors(&world.submit_body(body)), pairs(&[("1", "ImpossibleDependency")]));
}

#[test]
fn pure_goes_round_and_has_no_logic() {
    let mut world = World::with(Scheme::Pure, 1);
    world.join("a");
    world.join("b");
    let asks = json!({"after": ["unknown"], "follow": 5, "targets": ["x"], "retries": 3, "timeout": 1});
    let went: Vec<String> = ["1", "2", "3", "4"].iter().map(|id| engine(&world.submit(id, &asks))).collect();
    assert_eq!(went, ["b", "a", "b", "a"]);
    let out = world.answer("b", "1", "error");
    assert!(matches!(&out[0], TaskEffect::ToClient { engine: None, .. }), "{out:?}");
    assert_eq!(told(&world.unmet("a", "2")).len(), 1);
    world.leave("b");
    assert_eq!(errors(&world.pass(TaskConfig::GRACE)), pairs(&[("3", "EngineError")]));
}
