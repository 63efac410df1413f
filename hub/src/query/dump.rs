//! `dump_request`: the state of the controller as a whole. Stock clients never send it.

use remuda_proto::message::MsgType;
use remuda_proto::message::story::{EngineState, MAX_DUMPED};
use remuda_proto::{EngineUuid, Map, MsgId, Now, RemoteError};
use serde_json::{Value, json};

use super::story::{self, Facts};
use super::{Answer, Query, send, send_error, type_error};
use crate::asks::Then;
use crate::hub::{Effect, Hub};
use crate::question::{About, Question};
use crate::registry::Engine;
use crate::repr;
use crate::store::Ask;

/// Asks all who have something to say. The answer is for [`answer`], once they have.
pub(super) fn ask(hub: &mut Hub, now: Now, query: Query, out: &mut Vec<Effect>) {
    let tasks = match read(hub, &query) {
        Ok(tasks) => tasks,
        Err(error) => return send_error(hub, now, &query, &error, out),
    };
    let question = hub.questions.ask(now.instant, query, About::Controller, tasks.clone());
    out.push(Effect::Explain { question, msg_ids: tasks, whole: true });
    hub.ask(Ask::State, Then::State { question }, out);
}

/// The tasks to tell of: as many as are asked for by `tasks`, of those without a reply.
fn read(hub: &Hub, query: &Query) -> Result<Vec<MsgId>, RemoteError> {
    hub.questions.has_room()?;
    let most = match query.content.get("tasks") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_u64().and_then(|most| usize::try_from(most).ok()).ok_or_else(|| {
            type_error(format!("`tasks` of a dump_request is no number of tasks: {}", repr::value(value)))
        })?,
    };
    if most > MAX_DUMPED {
        let text = format!("{most} tasks are too many at a time: ask for {MAX_DUMPED} at most");
        return Err(RemoteError::new("ValueError", text));
    }
    Ok(hub.tracking.first_live(most))
}

/// Answers with what has been said by now, and names those who said nothing.
pub(super) fn answer(hub: &mut Hub, now: Now, question: &Question, facts: &Facts<'_>, out: &mut Vec<Effect>) {
    let scheduler = question.explanation.as_ref().and_then(|explanation| explanation.scheduler.clone());
    let (hearts, drivers) = (&question.hearts, &question.drivers);
    let parts = [
        ("task scheduler", scheduler.is_none()),
        ("heart monitor", hearts.is_none()),
        ("drivers", drivers.is_none()),
        ("task records", question.records.is_none()),
    ];
    let silent: Vec<&str> = parts.into_iter().filter_map(|(name, silent)| silent.then_some(name)).collect();
    let placed: Map<EngineUuid, EngineState> =
        scheduler.iter().flat_map(|state| &state.engines).map(|engine| (engine.uuid.clone(), engine.clone())).collect();
    let misses: Map<EngineUuid, u32> = hearts.iter().flat_map(|hearts| hearts.hearts.iter().cloned()).collect();
    let engines: Vec<Value> =
        hub.registry.engines().map(|one| engine(hub, one, placed.get(&one.uuid), misses.get(&one.uuid))).collect();
    let stories = story::tasks(hub, question, facts);
    let tasks: Vec<Value> = stories.into_values().flatten().map(|told| json!(told)).collect();
    let info = &hub.config.controller;
    let mut scheduler = json!(scheduler);
    if let Some(map) = scheduler.as_object_mut() {
        // They are told of beside what else is known of each.
        map.shift_remove("engines");
    }
    let content = json!({
        "status": "ok",
        "version": info.version,
        "pid": info.pid,
        "now": now.date,
        "started": info.started,
        "uptime_s": now.instant.since(hub.config.started_at).as_secs_f64(),
        "config": hub.config.in_effect,
        "engines": engines,
        "scheduler": scheduler,
        "hub": {
            "waiting": hub.tracking.waiting(),
            "running": hub.tracking.running(),
            "done": hub.tracking.done(),
            "finished_ids": hub.tracking.finished_ids(),
            "registering": hub.registry.pending(),
            "departed": hub.departed(),
            "records": question.records,
            "store_errors": hub.store_errors,
            "store_trouble": hub.store_trouble.as_ref().map(ToString::to_string),
            "questions": hub.questions.len() + 1,
            "asks": hub.asks.len(),
            "lag": drivers.as_ref().map(|drivers| drivers.hub_lag),
            "lag_limit": drivers.as_ref().map(|drivers| drivers.hub_lag_limit),
        },
        "hearts": hearts.as_ref().map(|hearts| json!({
            "period_ms": hearts.period_ms, "max_misses": hearts.max_misses, "known": hearts.hearts.len(),
        })),
        "refused": drivers.as_ref().map(|drivers| &drivers.refused),
        "tasks": tasks,
        "silent": silent,
    });
    send(hub, now, &question.query, MsgType::DumpReply, &Answer::new(content), out);
}

/// What is known of an engine.
fn engine(hub: &Hub, engine: &Engine, placed: Option<&EngineState>, missed_beats: Option<&u32>) -> Value {
    let counts = hub.tracking.counts(engine.key).unwrap_or_default();
    let capability = engine.capability();
    let said = engine.announcement.as_ref();
    json!({
        "id": engine.id,
        "uuid": engine.uuid,
        "native": said.is_some(),
        "host": said.map(|said| &said.host),
        "pid": said.map(|said| said.pid),
        "labels": said.map(|said| &said.labels),
        "python": capability.python,
        "python_version": said.and_then(|said| said.python.as_ref()),
        "process": capability.process,
        "functions": capability.functions,
        "outstanding": placed.map(|placed| placed.outstanding),
        "queued": placed.map(|placed| placed.queued),
        "direct": counts.queue,
        "tasks": counts.tasks,
        "completed": counts.completed,
        "missed_beats": missed_beats,
    })
}
