//! `remuda cluster status`: a cluster's processes, and how each engine stands.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use remuda_client::Client;
use remuda_cluster::ClusterFile;
use remuda_cluster::fleet::{EngineEntry, EngineStanding, Roster, UnitEntry, UnitStanding};
use serde_json::{Value, json};

use super::{door, engines_text};
use crate::args::Format;
use crate::args::cluster::StatusArgs;
use crate::commands::connect;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Seconds that the controller may take to answer.
const CONNECT_S: f64 = 10.0;

pub(super) fn run(args: &StatusArgs) -> Outcome {
    let profile = args.place.profile();
    let roster = door::roster(&args.place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let client = connect(&args.place, CONNECT_S).await?;
        let file = ClusterFile::read(&profile)?;
        status(&client, &roster, file.as_ref()).await
    })?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => writeln!(out, "{status:#}")?,
        Format::Table => print(&mut out, &status)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say, as one document.
async fn status(client: &Client, roster: &Roster, file: Option<&ClusterFile>) -> Result<Value, Failure> {
    let status = client.status().await?;
    let of_hub = status.remuda.as_ref();
    let mut ids: BTreeMap<_, _> =
        client.engines().into_iter().filter_map(|engine| Some((engine.uuid, engine.id?))).collect();
    let mut engines = Vec::new();
    for unit in &roster.units {
        for entry in &unit.engines {
            let id = ids.remove(&entry.uuid);
            let told = id.and_then(|id| of_hub?.engines.get(&id.to_string()));
            let queue = id.and_then(|id| status.queues.engines.get(&id));
            let state = match entry.standing {
                EngineStanding::Running => told.map_or("starting", |engine| &*engine.state),
                EngineStanding::BackingOff => "backing off",
                EngineStanding::Ended => "ended",
            };
            engines.push(json!({
                "id": id, "unit": unit.unit, "place": entry.place, "host": unit.host, "pid": entry.pid,
                "state": state, "tasks": queue.map(|queue| queue.queue + queue.tasks),
                "completed": queue.map(|queue| queue.completed), "restarts": entry.restarts,
                "last_end": last_end(entry), "again_in_s": entry.again_in_s, "log": entry.log, "job": job_id(unit),
            }));
        }
        if let Some(state) = without_engines(unit) {
            let host = unit.job.as_ref().map_or(&unit.host, |job| &job.host);
            engines.push(json!({
                "id": null, "unit": unit.unit, "place": null, "host": host, "pid": null, "state": state, "tasks": null,
                "completed": null, "restarts": unit.restarts, "last_end": unit.end.as_ref().map(|end| &end.how),
                "again_in_s": null, "log": unit.job.as_ref().map(|job| &job.output), "job": job_id(unit),
            }));
        }
    }
    for (_, id) in ids {
        // Started by somebody else.
        let told = of_hub.and_then(|remuda| remuda.engines.get(&id.to_string()));
        let queue = status.queues.engines.get(&id);
        engines.push(json!({
            "id": id, "unit": null, "place": null, "host": told.map(|engine| &engine.host),
            "pid": told.map(|engine| engine.pid), "state": told.map_or("registered", |engine| &*engine.state),
            "tasks": queue.map(|queue| queue.queue + queue.tasks), "completed": queue.map(|queue| queue.completed),
            "restarts": null, "last_end": null, "again_in_s": null, "log": null, "job": null,
        }));
    }
    engines.sort_by_key(|engine| {
        (engine["id"].is_null(), engine["id"].as_u64(), engine["unit"].as_u64(), engine["place"].as_u64())
    });
    let units: Vec<Value> = roster
        .units
        .iter()
        .map(|unit| {
            let standing = match unit.standing {
                UnitStanding::Starting => "starting",
                UnitStanding::Running => "running",
                UnitStanding::BackingOff => "backing off",
                UnitStanding::Ended => "ended",
            };
            json!({"unit": unit.unit, "engines": unit.wanted, "host": unit.host, "pid": unit.pid, "state": standing,
                   "end": unit.end.as_ref().map(|end| &end.how), "restarts": unit.restarts, "job": job_id(unit),
                   "waits": unit.job.as_ref().and_then(|job| job.waits.as_ref())})
        })
        .collect();
    let controller = file.map(|file| json!({"pid": file.controller.process.pid, "log": file.controller.log}));
    Ok(json!({"controller": controller, "ready": roster.ready, "units": units, "engines": engines}))
}

/// The job that a unit is in, if it is in one.
fn job_id(unit: &UnitEntry) -> Option<&str> {
    unit.job.as_ref().map(|job| &*job.id).filter(|id| !id.is_empty())
}

/// How a unit stands that has a job, and no engine yet or any more.
fn without_engines(unit: &UnitEntry) -> Option<String> {
    let job = unit.job.as_ref()?;
    let state = match (unit.standing, &job.waits) {
        (UnitStanding::BackingOff, _) => "backing off".to_owned(),
        _ if !unit.engines.is_empty() => return None,
        (UnitStanding::Ended, _) => "ended".to_owned(),
        (UnitStanding::Starting, Some(why)) if why.is_empty() => "pending".to_owned(),
        (UnitStanding::Starting, Some(why)) => format!("pending: {why}"),
        (UnitStanding::Starting | UnitStanding::Running, _) => "starting".to_owned(),
    };
    Some(state)
}

fn last_end(entry: &EngineEntry) -> Option<&str> {
    entry.last_end.as_ref().map(|end| &*end.how)
}

fn print(out: &mut impl Write, status: &Value) -> std::io::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::String(_) | Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut columns = vec!["id", "unit", "host", "pid", "state", "tasks", "completed", "restarts", "last_end"];
    let mut header = vec!["ID", "UNIT", "HOST", "PID", "STATE", "TASKS", "DONE", "RESTARTS", "LAST END"];
    if status["units"].as_array().into_iter().flatten().any(|unit| unit["job"].is_string()) {
        columns.insert(2, "job");
        header.insert(2, "JOB");
    }
    let engines = status["engines"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> =
        engines.map(|engine| columns.iter().map(|column| text(&engine[*column])).collect()).collect();
    let there = status["engines"].as_array().into_iter().flatten().filter(|engine| !engine["id"].is_null()).count();
    if rows.is_empty() {
        writeln!(out, "no engines")?;
    } else {
        output::table(out, &header, &rows)?;
    }
    writeln!(out, "\ncontroller: process {}; {} registered", text(&status["controller"]["pid"]), engines_text(there))?;
    Ok(())
}
