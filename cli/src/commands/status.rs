//! `remuda status`: engines, their load, and tasks waiting, running and done.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{Format, StatusArgs};
use crate::connect::of_client;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(ask(args))?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Json => writeln!(out, "{status:#}")?,
        Format::Table => print(&mut out, &status)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say, as one document.
async fn ask(args: &StatusArgs) -> Result<Value, Failure> {
    let (options, _) = of_client(&args.reach, &args.place);
    let file = options.path();
    let client = super::reach(&args.reach, &args.place, args.timeout).await?;
    let status = client.status().await?;
    let uuids = client.engines();
    let mut engines = Vec::new();
    for (id, queue) in &status.queues.engines {
        let more = status.remuda.as_ref().and_then(|remuda| remuda.engines.get(&id.to_string()));
        // A stock controller goes on listing engines that are gone.
        let Some(uuid) = uuids.iter().find(|engine| engine.id == Some(*id)).map(|engine| engine.uuid.to_string())
        else {
            continue;
        };
        engines.push(json!({
            "id": id, "uuid": uuid,
            "kind": more.map(|engine| if engine.native { "native" } else { "python" }),
            "host": more.map(|engine| &engine.host), "pid": more.map(|engine| engine.pid),
            "queue": queue.queue, "tasks": queue.tasks, "completed": queue.completed,
            "state": more.map_or(if queue.queue + queue.tasks > 0 { "busy" } else { "idle" }, |engine| &*engine.state),
        }));
    }
    let outstanding: u64 = status.queues.engines.values().map(|queue| queue.queue + queue.tasks).sum();
    let finished: u64 = status.queues.engines.values().map(|queue| queue.completed).sum();
    let remuda = status.remuda.as_ref();
    Ok(json!({
        "controller": file,
        "engines": engines,
        "tasks": {
            "waiting": remuda.map_or(status.queues.unassigned, |remuda| remuda.waiting),
            "running": remuda.map_or(outstanding, |remuda| remuda.running),
            "done": remuda.map_or(finished, |remuda| remuda.done.ok + remuda.done.error + remuda.done.aborted),
            "failed": remuda.map(|remuda| remuda.done.error),
            "aborted": remuda.map(|remuda| remuda.done.aborted),
            "paused": remuda.and_then(|remuda| remuda.paused.as_ref()),
        },
    }))
}

fn print(out: &mut impl Write, status: &Value) -> io::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        // A stock engine does not say its process id.
        other => other.to_string(),
    };
    let columns = ["id", "kind", "host", "pid", "state", "queue", "tasks", "completed"];
    let header = ["ID", "KIND", "HOST", "PID", "STATE", "DIRECT", "TASKS", "DONE"];
    let rows: Vec<Vec<String>> = status["engines"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|engine| {
            let cells = columns.iter().map(|column| text(&engine[*column]));
            cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect()
        })
        .collect();
    if rows.is_empty() {
        writeln!(out, "no engines")?;
    } else {
        output::table(out, &header, &rows)?;
    }
    let tasks = &status["tasks"];
    let count = |key: &str| tasks[key].as_u64().unwrap_or_default();
    let mut line = format!(
        "\n{} waiting, {} running, {} done",
        text(&tasks["waiting"]),
        text(&tasks["running"]),
        text(&tasks["done"])
    );
    for key in ["failed", "aborted"] {
        if tasks[key].as_u64().is_some_and(|count| count > 0) {
            line.extend([", of these ", &tasks[key].to_string(), " ", key]);
        }
    }
    writeln!(out, "{line}")?;
    if let Some(limit) = tasks["paused"]["limit"].as_str() {
        let (pending, value) = (count("waiting") + count("running"), &tasks["paused"]["value"]);
        let of = if limit.ends_with("tasks") { format!("{pending} of {value}") } else { format!("{value} bytes") };
        writeln!(out, "no more tasks are read from clients until a quarter is done: --{limit} is reached ({of})")?;
    }
    Ok(())
}
