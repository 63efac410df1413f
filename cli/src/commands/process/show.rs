//! `remuda process list` and `show`.

use std::io::{self, Write};
use std::process::ExitCode;

use remuda_client::definitions::DefinitionRecord;
use remuda_proto::Date;
use serde_json::{Value, json};

use super::{client, failed, say};
use crate::args::process::{ListArgs, ShowArgs};
use crate::commands::task::words;
use crate::failure::{Failure, Outcome};
use crate::output::{Look, Table};

const HEADER: [&str; 6] = ["ID", "NAME", "TYPE", "APPLICATION", "CHANGED", "PROGRAM"];
/// What is narrowed where the terminal is.
const NARROW: &[usize] = &[5, 3];
/// Most that are asked for at once.
const PAGE: u64 = 1_000;

pub(super) async fn list(args: &ListArgs) -> Outcome {
    let client = client(&args.controller).await?;
    let (mut records, mut total) = (Vec::new(), 0);
    let wanted = if args.limit == 0 { u64::MAX } else { args.limit };
    loop {
        let have = records.len() as u64;
        let asked = (wanted - have).min(PAGE);
        let page = client.definitions().list(asked, args.offset.saturating_add(have)).await.map_err(failed)?;
        let came = page.definitions.len() as u64;
        records.extend(page.definitions);
        total = total.max(page.total);
        if came < asked || records.len() as u64 >= wanted {
            break;
        }
    }
    if args.json {
        return print_json(&json!(records));
    }
    if records.is_empty() {
        say(if total == 0 { "no process definitions are kept" } else { "there are no so many process definitions" });
        return Ok(ExitCode::SUCCESS);
    }
    let now = remuda_net::Clock::new().now().date;
    let rows: Vec<Vec<String>> = records.iter().map(|record| row(record, now)).collect();
    let mut out = io::stdout().lock();
    Table::new(&HEADER, &rows, Look::of_stdout(NARROW, |_, _| None)).print(&mut out, &rows)?;
    out.flush()?;
    let shown = records.len() as u64 + args.offset;
    if shown < total {
        say(&format!("{} more", total - shown));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(args: &ShowArgs) -> Outcome {
    let client = client(&args.controller).await?;
    let record = client.definitions().get(&*args.which).await.map_err(failed)?;
    if args.json {
        return print_json(&json!(record));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut line = |key: &str, value: &str| writeln!(out, "{key:<16}{value}");
    line("id", &record.id.to_string())?;
    for (key, value) in &record.definition {
        line(&words::line(key), &shown(key, value))?;
    }
    line("created", &record.created.to_string())?;
    line("updated", &record.updated.to_string())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn row(record: &DefinitionRecord, now: Date) -> Vec<String> {
    let text = |key: &str| record.definition.get(key).and_then(Value::as_str).map(words::line);
    let arguments = record.definition.get("argv").and_then(Value::as_array).into_iter().flatten();
    let argv: Vec<String> = record.definition.get("exec").into_iter().chain(arguments).map(plain).collect();
    vec![
        record.id.to_string(),
        text("name").unwrap_or_else(|| "-".to_owned()),
        text("process_type").unwrap_or_else(|| "single".to_owned()),
        text("application").unwrap_or_else(|| "-".to_owned()),
        words::ago(record.updated, now),
        words::line(&words::command(&argv)),
    ]
}

fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Array(items) if key == "argv" => {
            words::line(&words::command(&items.iter().map(plain).collect::<Vec<_>>()))
        }
        other => words::line(&plain(other)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn print_json(document: &Value) -> Result<ExitCode, Failure> {
    writeln!(io::stdout().lock(), "{document:#}")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_run() {
        let record: DefinitionRecord = serde_json::from_value(json!({
            "id": 3, "definition": {"exec": "tr", "argv": ["-d", "a b"]}, "created": "2026-11-22T10:00:00Z",
            "updated": "2026-11-22T10:00:30Z"
        }))
        .unwrap();
        let now = Date::parse("2026-11-22T10:01:00Z").unwrap();
        assert_eq!(row(&record, now), ["3", "-", "single", "-", "30.0 s", "tr -d 'a b'"]);
    }
}
