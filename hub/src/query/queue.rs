//! `queue_request`: what each engine has to do and did, in numbers or ids.

use remuda_proto::message::content::{EngineStatus, PausedIntake, RemudaStatus};
use remuda_proto::{Map, RemoteError};
use serde_json::json;

use super::{Answer, Query, target};
use crate::hub::Hub;
use crate::registry::Engine;
use crate::tracking::Counts;

/// With `verbose`, ids in place of numbers. The ids of what an engine finished are those that the hub still remembers,
/// so there can be fewer than were counted.
pub(super) fn answer(hub: &Hub, query: &Query) -> Result<Answer, RemoteError> {
    let engines = target::engines(hub, query)?;
    let mut content = json!({"status": "ok"});
    if query.flag("verbose") {
        let keys: Vec<_> = engines.iter().map(|engine| engine.key).collect();
        let (lists, waiting) = hub.tracking.lists(&keys);
        for engine in &engines {
            let of = &lists[&engine.key];
            content[engine.id.to_string()] = json!({"queue": of.queue, "completed": of.completed, "tasks": of.tasks});
        }
        content["unassigned"] = json!(waiting);
    } else {
        for engine in &engines {
            let of = counts(hub, engine);
            content[engine.id.to_string()] = json!({"queue": of.queue, "completed": of.completed, "tasks": of.tasks});
        }
        content["unassigned"] = json!(hub.tracking.waiting());
    }
    if query.wants_remuda() {
        content["remuda"] = json!(status(hub, &engines));
    }
    Ok(Answer::new(content))
}

fn counts(hub: &Hub, engine: &Engine) -> Counts {
    hub.tracking.counts(engine.key).unwrap_or_else(|| panic!("engine {} is registered, not tracked", engine.id))
}

fn status(hub: &Hub, engines: &[&Engine]) -> RemudaStatus {
    let engines: Map<_, _> = engines.iter().map(|engine| (engine.id.to_string(), engine_status(hub, engine))).collect();
    RemudaStatus {
        engines,
        waiting: hub.tracking.waiting() as u64,
        running: hub.tracking.running() as u64,
        done: hub.tracking.done(),
        store_errors: hub.store_errors,
        paused: hub.paused.map(|limit| PausedIntake { limit: limit.name().to_owned(), value: limit.value() as u64 }),
    }
}

fn engine_status(hub: &Hub, engine: &Engine) -> EngineStatus {
    let Counts { queue, tasks, completed } = counts(hub, engine);
    let announced = engine.announcement.clone();
    let native = announced.is_some();
    let announced = announced.unwrap_or_default();
    let state = match queue + tasks {
        _ if hub.is_draining(engine.id) => "draining",
        0 => "idle",
        _ => "busy",
    };
    EngineStatus {
        uuid: engine.uuid.clone(),
        native,
        host: announced.host,
        pid: announced.pid,
        functions: announced.functions,
        process: announced.process,
        python: announced.python,
        slots: announced.slots.max(1),
        resources: announced.resources,
        labels: announced.labels,
        queue: queue as u64,
        tasks: tasks as u64,
        completed,
        state: state.to_owned(),
    }
}
