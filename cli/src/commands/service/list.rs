//! `remuda service list`.

use std::io::{self, Write};
use std::process::ExitCode;

use remuda_proto::Date;
use serde_json::{Value, json};

use super::known::{Service, Services};
use super::{client, say};
use crate::args::Format;
use crate::args::service::ListArgs;
use crate::commands::task::words;
use crate::failure::Outcome;
use crate::output::{Colour, Look, Table};

const HEADER: [&str; 7] = ["NAME", "TASK", "STATE", "ENGINE", "RESTARTS", "SINCE", "LAST EXIT"];
/// What is narrowed where the terminal is.
const NARROW: &[usize] = &[1, 6, 0];

pub(super) async fn list(args: &ListArgs) -> Outcome {
    let services = Services::of(client(&args.controller).await?)?;
    let mut listed = services.listed(args.all).await?;
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = io::stdout().lock();
    if args.output == Format::Json {
        let all: Vec<Value> = listed.iter().map(shown).collect();
        writeln!(out, "{:#}", Value::from(all))?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        say("no services were started: `remuda service start` starts one");
        return Ok(ExitCode::SUCCESS);
    }
    let now = remuda_net::Clock::new().now().date;
    let rows: Vec<Vec<String>> = listed.iter().map(|service| row(service, now)).collect();
    Table::new(&HEADER, &rows, Look::of_stdout(NARROW, colour)).print(&mut out, &rows)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn shown(service: &Service) -> Value {
    json!({
        "name": service.name,
        "task": service.msg_id,
        "state": service.state(),
        "engine": service.engine(),
        "policy": service.restart.policy,
        "restarts": service.restarts(),
        "limit": service.restart.limit,
        "since": service.since(),
        "next_start": service.next_start(),
        "last_exit": service.last_exit(),
        "submitted": service.story.submitted,
    })
}

fn row(service: &Service, now: Date) -> Vec<String> {
    let none = || "-".to_owned();
    let restarts = match (service.restarts(), service.restart.limit) {
        (None, _) => none(),
        (Some(restarts), None) => restarts.to_string(),
        (Some(restarts), Some(limit)) => format!("{restarts} of {limit}"),
    };
    let engine = service.engine().map(|engine| engine.id.map_or_else(|| engine.uuid.to_string(), |id| id.to_string()));
    vec![
        words::line(&service.name),
        service.msg_id.to_string(),
        service.state().to_owned(),
        engine.unwrap_or_else(none),
        restarts,
        service.since().map_or_else(none, |since| words::ago(since, now)),
        service.last_exit().map_or_else(none, |exit| words::line(&exit)),
    ]
}

fn colour(column: usize, text: &str) -> Option<Colour> {
    match (column, text) {
        (2, "running") => Some(Colour::Green),
        (2, "backing-off" | "waiting") => Some(Colour::Yellow),
        (2, "lost") => Some(Colour::Red),
        _ => None,
    }
}
