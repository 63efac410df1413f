//! Nothing is seen that is not on disk.

use remuda_proto::monitor::{Durability, Ticket};

use super::*;

fn sync(engines: &[&str]) -> World {
    let mut world = World::new(TaskConfig { durability: Durability::Sync, ..TaskConfig::default() });
    engines.iter().for_each(|engine| drop(world.join(engine)));
    world
}

/// The tickets that the hub is given.
fn tickets(out: &[TaskEffect]) -> Vec<u64> {
    let tickets = out.iter().filter_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Request { ticket, .. } | Monitor::Reply { ticket, .. }) => ticket.as_ref(),
        _ => None,
    });
    tickets.map(|ticket| ticket.0).collect()
}

impl World {
    fn committed(&mut self, ticket: u64) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Committed { ticket: Ticket(ticket) })
    }
}

#[test]
fn a_task_goes_to_an_engine_and_a_reply_to_its_client_once_they_are_on_disk() {
    let mut world = sync(&["e"]);
    let out = world.submit("1", &plain());
    assert_eq!((tickets(&out), sent(&out)), (vec![1], Vec::new()));
    assert_eq!(world.counts(), (1, 0, 0));
    assert_eq!(sent(&world.committed(1)), pairs(&[("1", "e")]));
    let out = world.answer("e", "1", "ok");
    assert_eq!(tickets(&out), [2]);
    assert_eq!(monitored(&out), ["1 done by e"]);
    assert!(told(&out).is_empty() && !world.scheduler.is_idle());
    let out = world.committed(2);
    assert_eq!((told(&out).len(), out.len()), (1, 1));
    assert!(world.scheduler.is_idle());
}

#[test]
fn a_task_that_waits_for_others_is_sent_once_their_replies_are_on_disk() {
    let mut world = sync(&["e"]);
    world.submit("1", &plain());
    world.submit("2", &plain());
    world.submit("3", &json!({"after": ["1", "2"], "follow": ["2"]}));
    world.submit("4", &json!({"after": ["1"]}));
    world.committed(4);
    assert!(sent(&world.answer("e", "1", "ok")).iter().all(|(task, _)| task == "2"));
    assert!(sent(&world.answer("e", "2", "ok")).is_empty(), "a controller that takes over would run it again");
    assert_eq!(sent(&world.committed(5)), pairs(&[("4", "e")]));
    world.answer("e", "4", "ok");
    assert_eq!(sent(&world.committed(6)), pairs(&[("3", "e")]));
    world.answer("e", "3", "ok");
    world.committed(8);
    assert!(world.scheduler.is_idle());
}

#[test]
fn one_commit_may_be_for_many_and_an_engine_is_free_before_its_reply_is_out() {
    let mut world = sync(&["e"]);
    world.submit("1", &plain());
    world.submit("2", &plain());
    assert_eq!(sent(&world.committed(2)), pairs(&[("1", "e")]));
    let out = world.answer("e", "1", "ok");
    assert_eq!((sent(&out), told(&out).len()), (pairs(&[("2", "e")]), 0));
    world.answer("e", "2", "error");
    world.submit("3", &plain());
    assert_eq!(world.counts(), (1, 0, 0));
    let out = world.committed(4);
    let said: Vec<_> = told(&out).into_iter().map(|said| said.msg_id).collect();
    assert_eq!(said, ["1", "2"]);
    assert_eq!(sent(&world.committed(5)), pairs(&[("3", "e")]));
}

#[test]
fn a_task_that_ends_before_it_is_on_disk_is_never_sent() {
    let mut world = sync(&["e"]);
    world.submit("1", &plain());
    let out = world.abort(&["1"]);
    assert_eq!((tickets(&out), told(&out).len()), (vec![2], 0));
    // Another one has its place.
    world.submit("2", &plain());
    assert!(sent(&world.committed(1)).is_empty());
    assert_eq!(told(&world.committed(2))[0].status, "aborted");
    assert_eq!(sent(&world.committed(3)), pairs(&[("2", "e")]));
}

#[test]
fn a_task_that_waits_for_others_waits_for_both() {
    let mut world = sync(&["e"]);
    world.submit("1", &plain());
    world.committed(1);
    world.submit("2", &json!({"after": ["1"]}));
    // What the first one said is known, and not on disk yet.
    assert!(sent(&world.answer("e", "1", "ok")).is_empty());
    assert!(sent(&world.committed(2)).is_empty());
    assert_eq!(sent(&world.committed(3)), pairs(&[("2", "e")]));
    world.submit("3", &json!({"after": ["2"]}));
    assert!(sent(&world.committed(4)).is_empty());
    assert!(sent(&world.answer("e", "2", "ok")).is_empty());
    assert_eq!(sent(&world.committed(5)), pairs(&[("3", "e")]));
}

#[test]
fn the_time_of_a_task_runs_while_it_waits_for_the_disk() {
    let mut world = sync(&["e"]);
    world.submit("1", &json!({"timeout": 2.0}));
    let out = world.pass(Duration::from_secs(2));
    assert_eq!((tickets(&out), told(&out).len()), (vec![2], 0));
    assert_eq!(errors(&world.committed(2)), pairs(&[("1", "TaskTimeout")]));
}

#[test]
fn what_no_record_is_made_of_does_not_wait() {
    let mut world = sync(&["e"]);
    let body = world.request("1", "apply_request", &plain(), &plain());
    let size = body.size_bytes();
    // The hub has it on record already.
    let out = world.handle(TaskEvent::Resubmit { msg_id: "1".into(), body });
    assert_eq!(sent(&out), pairs(&[("1", "e")]));
    assert!(tickets(&world.answer("e", "1", "ok")).is_empty());
    assert!(world.scheduler.is_idle());
    let config = TaskConfig { durability: Durability::Sync, max_message_bytes: size, ..TaskConfig::default() };
    let mut world = World::new(config);
    assert_eq!(errors(&world.submit("2", &json!({"label": "too large"}))), pairs(&[("2", "ValueError")]));
}

#[test]
fn without_that_promise_nothing_waits() {
    for durability in [Durability::None, Durability::Async] {
        let mut world = World::new(TaskConfig { durability, ..TaskConfig::default() });
        world.join("e");
        let out = world.submit("1", &plain());
        assert_eq!((sent(&out).len(), tickets(&out).len()), (1, 0));
        assert_eq!(told(&world.answer("e", "1", "ok")).len(), 1);
    }
}
