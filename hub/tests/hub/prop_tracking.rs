//! The counts against a naive model, whatever the order in which schedulers and engines act.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use remuda_hub::Limits;
use remuda_hub::store::MemoryStore;
use remuda_proto::message::Status;
use remuda_proto::monitor::Queue;
use serde_json::json;

use super::support::Story;

const ENGINES: usize = 3;
const TASKS: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Engine, by number: a new one if it is gone.
    Join(usize),
    Leave(usize),
    Direct(usize, usize),
    Submit(usize),
    Send(usize, usize),
    Requeue(usize),
    /// The reply to a task, from an engine or (with `None`) from the scheduler.
    Reply(usize, Option<usize>, Status),
    DirectReply(usize, usize, Status),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let engine = 0..ENGINES;
    let task = 0..TASKS;
    let status = proptest::sample::select(&[Status::Ok, Status::Error, Status::Aborted][..]);
    prop_oneof![
        2 => engine.clone().prop_map(Step::Join),
        1 => engine.clone().prop_map(Step::Leave),
        3 => (task.clone(), engine.clone()).prop_map(|(task, engine)| Step::Direct(task, engine)),
        3 => task.clone().prop_map(Step::Submit),
        4 => (task.clone(), engine.clone()).prop_map(|(task, engine)| Step::Send(task, engine)),
        1 => task.clone().prop_map(Step::Requeue),
        3 => (task.clone(), proptest::option::of(engine.clone()), status.clone())
            .prop_map(|(task, engine, status)| Step::Reply(task, engine, status)),
        3 => (task, engine, status).prop_map(|(task, engine, status)| Step::DirectReply(task, engine, status)),
        1 => (1..40_u64).prop_map(Step::Pass),
    ]
}

/// What the model knows of a request without a reply. Engines are numbers and generations, so that one that comes back
/// is another one.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Waiting,
    Direct(usize, u32),
    Task(Option<(usize, u32)>),
}

#[derive(Default)]
struct Model {
    live: BTreeMap<usize, At>,
    ended: Vec<usize>,
    /// The generation of each engine that is registered.
    engines: BTreeMap<usize, u32>,
    completed: BTreeMap<usize, u64>,
    /// When the engine left, in seconds.
    left: Vec<(u64, usize, u32)>,
    clock: u64,
}

fn task(at: usize) -> String {
    format!("t{at}")
}

fn uuid(engine: usize) -> String {
    format!("e{engine}")
}

proptest! {
    #[test]
    fn counts_are_those_of_a_naive_model(steps in proptest::collection::vec(step(), 1..80)) {
        let limits = Limits { records: 4, size_bytes: 4_000, cull_fraction: 0.1 };
        let mut story = Story::with(MemoryStore::new(limits));
        let mut model = Model::default();
        let mut ids = BTreeMap::new();
        let mut generation = 0;
        for step in steps {
            match step {
                Step::Join(engine) if !model.engines.contains_key(&engine) => {
                    generation += 1;
                    model.engines.insert(engine, generation);
                    model.completed.insert(engine, 0);
                    ids.insert(engine, story.engine(&uuid(engine)));
                }
                Step::Join(_) => {}
                Step::Leave(engine) => {
                    if let Some(generation) = model.engines.remove(&engine) {
                        model.left.push((model.clock, engine, generation));
                        story.query("unregistration_request", &json!({"id": ids[&engine]}));
                    }
                }
                Step::Direct(at, engine) => {
                    story.direct(&task(at), &uuid(engine));
                    let known = model.live.contains_key(&at) || model.ended.contains(&at);
                    if let (Some(generation), false) = (model.engines.get(&engine), known) {
                        model.live.insert(at, At::Direct(engine, *generation));
                    }
                }
                Step::Submit(at) => {
                    story.request(&task(at), Queue::Task, None);
                    if !model.ended.contains(&at) {
                        model.live.entry(at).or_insert(At::Waiting);
                    }
                }
                Step::Send(at, engine) => {
                    story.sent(&task(at), &uuid(engine));
                    if let Some(place @ (At::Waiting | At::Task(_))) = model.live.get_mut(&at) {
                        *place = At::Task(model.engines.get(&engine).map(|generation| (engine, *generation)));
                    }
                }
                Step::Requeue(at) => {
                    story.requeued(&task(at));
                    if let Some(place @ (At::Waiting | At::Task(_))) = model.live.get_mut(&at) {
                        *place = At::Waiting;
                    }
                }
                Step::Reply(at, engine, status) => {
                    story.ends(&task(at), Queue::Task, engine.map(uuid).as_deref(), status);
                    if let Some(At::Waiting | At::Task(_)) = model.live.get(&at) {
                        model.live.remove(&at);
                        model.ended.push(at);
                        let engine = engine.filter(|engine| model.engines.contains_key(engine));
                        if let (Some(engine), true) = (engine, status != Status::Aborted) {
                            *model.completed.get_mut(&engine).unwrap() += 1;
                        }
                    }
                }
                Step::DirectReply(at, engine, status) => {
                    story.ends(&task(at), Queue::Mux, Some(&uuid(engine)), status);
                    if let Some(At::Direct(on, generation)) = model.live.get(&at).copied()
                        && on == engine
                    {
                        model.live.remove(&at);
                        model.ended.push(at);
                        if model.engines.get(&engine) == Some(&generation) {
                            *model.completed.get_mut(&engine).unwrap() += 1;
                        }
                    }
                }
                Step::Pass(seconds) => {
                    prop_assert_eq!(story.pass(Duration::from_secs(seconds)), []);
                    model.clock += seconds;
                    let clock = model.clock;
                    let due = |on: usize, of: u32| model.left.iter().any(|(at, engine, generation)| {
                        (*engine, *generation) == (on, of) && at + 30 <= clock
                    });
                    let lost: Vec<_> = model.live.iter()
                        .filter(|(_, at)| matches!(at, At::Direct(engine, generation) if due(*engine, *generation)))
                        .map(|(at, _)| *at)
                        .collect();
                    for at in lost {
                        model.live.remove(&at);
                        model.ended.push(at);
                    }
                }
            }
            let queues = story.queues();
            for (engine, generation) in &model.engines {
                let count = |wanted: fn(usize, u32) -> At| {
                    let wanted = wanted(*engine, *generation);
                    model.live.values().filter(|at| **at == wanted).count()
                };
                let expected = json!({
                    "queue": count(At::Direct),
                    "completed": model.completed[engine],
                    "tasks": count(|engine, generation| At::Task(Some((engine, generation)))),
                });
                prop_assert_eq!(&queues[ids[engine].to_string()], &expected);
            }
            prop_assert_eq!(queues.as_object().unwrap().len(), model.engines.len() + 1, "no engine but those");
            let waiting = model.live.values().filter(|at| **at == At::Waiting).count();
            prop_assert_eq!(&queues["unassigned"], &json!(waiting));
            prop_assert_eq!(story.hub.waiting_and_running(), (waiting, model.live.len() - waiting));
        }

        // Everything that is left ends, and nothing remains.
        for (at, place) in &model.live {
            match place {
                At::Direct(engine, _) => drop(story.ends(&task(*at), Queue::Mux, Some(&uuid(*engine)), Status::Ok)),
                _ => drop(story.ends(&task(*at), Queue::Task, None, Status::Error)),
            }
            prop_assert_eq!(story.status_of(&task(*at)), "completed");
        }
        prop_assert_eq!(story.hub.waiting_and_running(), (0, 0));
        let queues = story.queues();
        for engine in model.engines.keys() {
            let queue = &queues[ids[engine].to_string()];
            prop_assert_eq!((&queue["queue"], &queue["tasks"]), (&json!(0), &json!(0)));
        }
    }
}
