//! Engines that get no more tasks.

use super::*;

impl World {
    /// The engine gets no more tasks, by the request of this number, or does again.
    fn drain(&mut self, uuid: &str, request: Option<u64>) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Drain { uuid: uuid.into(), request })
    }
}

/// The engines that are said to have nothing left, and by which request they get nothing more.
fn drained(out: &[TaskEffect]) -> Vec<(String, u64)> {
    let drained = out.iter().filter_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Drained { engine, request }) => Some((engine.to_string(), *request)),
        _ => None,
    });
    drained.collect()
}

#[test]
fn an_engine_that_is_drained_finishes_what_it_has_and_is_told_of_after_its_last_reply() {
    let mut world = World::with(Scheme::LeastLoad, 2);
    world.join("a");
    world.submit("1", &plain());
    world.submit("2", &plain());
    world.submit("3", &plain());
    assert_eq!(drained(&world.drain("a", Some(7))), []);
    let out = world.answer("a", "1", "ok");
    assert_eq!((sent(&out), drained(&out)), (Vec::new(), Vec::new()), "it has one left, and gets no other");
    let out = world.answer("a", "2", "error");
    assert_eq!(drained(&out), [("a".to_owned(), 7)]);
    let reply = out.iter().position(|effect| matches!(effect, TaskEffect::Monitor(Monitor::Reply { .. })));
    let word = out.iter().position(|effect| matches!(effect, TaskEffect::Monitor(Monitor::Drained { .. })));
    assert!(reply < word, "the hub knows of the reply by then: {out:?}");
    assert_eq!(world.counts(), (0, 1, 0));
    assert_eq!(sent(&world.join("b")), pairs(&[("3", "b")]));
}

#[test]
fn one_that_is_idle_is_told_of_at_once_and_others_get_what_comes_whatever_the_scheme() {
    for scheme in Scheme::ALL {
        let mut world = World::with(scheme, 0);
        world.join("a");
        world.join("b");
        assert_eq!(drained(&world.drain("a", Some(1))), [("a".to_owned(), 1)], "{scheme}");
        for task in 0..20 {
            assert_eq!(engine(&world.submit(&task.to_string(), &plain())), "b", "{scheme}");
        }
        assert_eq!(sent(&world.drain("a", None)), [], "{scheme}");
        assert_eq!(world.load("a"), 0);
    }
}

#[test]
fn one_that_gets_tasks_again_gets_those_that_waited() {
    let mut world = World::of(&["a"]);
    world.drain("a", Some(1));
    world.submit("1", &plain());
    world.submit("2", &json!({"targets": ["a"]}));
    assert_eq!(world.counts(), (0, 2, 0), "what only this one may run waits, too");
    assert_eq!(sent(&world.drain("a", None)), pairs(&[("1", "a")]));
    assert_eq!(drained(&world.answer("a", "1", "ok")), []);
}

#[test]
fn what_waits_for_one_that_leaves_ends_as_with_any_engine() {
    let mut world = World::of(&["a"]);
    world.drain("a", Some(1));
    world.submit("2", &json!({"targets": ["a"]}));
    assert_eq!(errors(&world.leave("a")), pairs(&[("2", "ImpossibleDependency")]));
    assert_eq!(sent(&world.join("a")), [], "nothing is left of it");
    assert_eq!(engine(&world.submit("3", &plain())), "a", "it gets tasks when it comes back");
}

#[test]
fn what_was_kept_free_on_it_is_not_any_more() {
    let mut world = World::with(Scheme::LeastLoad, 1);
    let machine = || Capability::native(&Announcement { process: true, slots: 2, ..Announcement::default() });
    let program = |world: &mut World, msg_id: &str, cpus: u32| {
        let content = json!({"remuda": {"process": {"argv": ["true"]}}});
        let metadata = json!({"remuda": {"needs": {"cpus": cpus}}});
        let body = world.request(msg_id, "apply_request", &metadata, &content);
        world.submit_body(body)
    };
    world.register("a", machine());
    program(&mut world, "1", 1);
    program(&mut world, "2", 1);
    program(&mut world, "large", 2);
    // From now on the free slot of `a` is kept for `large`.
    assert_eq!(sent(&world.answer("a", "1", "ok")), []);
    world.drain("a", Some(1));
    assert_eq!(drained(&world.answer("a", "2", "ok")), [("a".to_owned(), 1)]);
    assert_eq!(engine(&world.register("b", machine())), "b");
}

#[test]
fn an_engine_that_is_not_there_cannot_be_drained() {
    let mut world = World::of(&["a"]);
    assert_eq!(drained(&world.drain("b", Some(1))), []);
    world.join("b");
    world.submit("1", &plain());
    assert_eq!(engine(&world.submit("2", &plain())), "a");
}
