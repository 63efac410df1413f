//! `remuda task show`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use remuda_client::Engine;
use remuda_client::records::Record;
use remuda_proto::message::content::RecordSize;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::{Date, Dependency};
use serde_json::{Map, Value};

use super::list::{print_json, print_jsonl};
use super::source::{Intent, MAX_NAMED, Selection, Source};
use super::summary::Summary;
use super::words;
use crate::args::task::{RecordFormat, ShowArgs};
use crate::failure::Outcome;

/// All fields of a record that every controller has, but the buffers; and its state.
const KEYS: [&str; 22] = [
    "msg_id",
    "state",
    "queue",
    "engine_uuid",
    "client_uuid",
    "label",
    "submitted",
    "started",
    "completed",
    "received",
    "resubmitted",
    "header",
    "metadata",
    "content",
    "result_header",
    "result_metadata",
    "result_content",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
];
/// Most ids that are named of those that a task depends on.
const MAX_SHOWN: usize = 5;

pub(super) async fn run(args: &ShowArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let ids = source.tasks(&args.tasks).await?;
    let mut records = Vec::with_capacity(ids.len());
    for some in ids.chunks(MAX_NAMED) {
        let selection = Selection { sizes: true, ..Selection::tasks(some, &KEYS) };
        records.append(&mut source.records(&selection).await?);
    }
    let place = |record: &Record| {
        ids.iter().position(|id| record.fields.get("msg_id").and_then(Value::as_str) == Some(id.as_str()))
    };
    records.sort_by_cached_key(place);
    let fields: Vec<&Map<String, Value>> = records.iter().map(|record| &record.fields).collect();
    match args.output {
        RecordFormat::Json => print_json(&fields)?,
        RecordFormat::Jsonl => print_jsonl(&fields)?,
        RecordFormat::Table => {
            let (engines, now) = (source.engines(), remuda_net::Clock::new().now().date);
            let told: Vec<String> =
                records.iter().map(|record| tell(record, &engines, now, &args.source.place.options())).collect();
            io::stdout().lock().write_all(told.join("\n").as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All that there is to say, a line for each thing; `options` lead to the same cluster.
fn tell(record: &Record, engines: &[Engine], now: Date, options: &str) -> String {
    let task = Summary::of(record, engines);
    let mut text = format!("task {}\n", words::line(&task.msg_id));
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(text, "  {name:<12}{value}").expect("a text takes all that is written");
        }
    };
    let dated = |date: Option<Date>, more: Option<String>| {
        let more = more.map(|more| format!(" ({more})")).unwrap_or_default();
        date.map(|date| format!("{date}{more}"))
    };
    let date = |name: &str| record.fields.get(name).and_then(Value::as_str).and_then(Date::parse);
    line("state", Some(words::line(&task.state)));
    line("error", task.error.as_deref().map(words::line));
    line("kind", task.kind.clone());
    line("runs", task.task.as_deref().map(words::line));
    line("queue", task.queue.clone());
    line("label", (!task.label().is_empty()).then(|| task.label()));
    line("client", task.client.as_deref().map(words::line));
    let id = task.engine_id.map(|id| format!("{id} ")).unwrap_or_default();
    line("engine", task.engine_uuid.as_deref().map(|uuid| format!("{id}({})", words::line(uuid))));
    line("submitted", dated(task.submitted, task.submitted.map(|date| format!("{} ago", words::ago(date, now)))));
    line(
        "started",
        dated(task.started, task.waited_s.map(|seconds| format!("it waited {}", words::duration(seconds)))),
    );
    line("completed", dated(task.completed, task.ran_s.map(|seconds| format!("it ran {}", words::duration(seconds)))));
    line("received", dated(date("received"), None));
    let resubmitted = record.fields.get("resubmitted").and_then(Value::as_str);
    line("repeated as", resubmitted.map(words::line));
    let metadata = record.fields.get("metadata").cloned().unwrap_or_default();
    if let Ok(metadata) = serde_json::from_value::<TaskMetadata>(metadata) {
        line("after", dependency(&metadata.after));
        line("follow", dependency(&metadata.follow));
        let targets: Vec<String> = metadata.targets.iter().map(|uuid| words::line(uuid.as_str())).collect();
        line("targets", (!targets.is_empty()).then(|| targets.join(", ")));
        line("retries", (metadata.retries() > 0).then(|| metadata.retries().to_string()));
        line("timeout", metadata.timeout().map(|timeout| words::duration(timeout.as_secs_f64())));
    }
    let size = record.fields.get("remuda").and_then(|size| serde_json::from_value::<RecordSize>(size.clone()).ok());
    if let Some(RecordSize { request_bytes, result_bytes }) = size {
        line("size", Some(format!("request {}, result {}", words::bytes(request_bytes), words::bytes(result_bytes))));
    }
    let written = |name: &str| record.fields.get(name).and_then(Value::as_str).map_or(0, str::len) as u64;
    let output = format!("stdout {}, stderr {}", words::bytes(written("stdout")), words::bytes(written("stderr")));
    line("output", (written("stdout") + written("stderr") > 0).then_some(output));
    let id = words::line(&task.msg_id);
    line(
        "see also",
        Some(match &*task.state {
            "waiting" | "running" => format!("remuda debug story {id}{options}"),
            _ => format!("remuda task result {id}{options}"),
        }),
    );
    text
}

/// What it waits or waited for.
fn dependency(dependency: &Dependency) -> Option<String> {
    let count = dependency.ids.len();
    if count == 0 {
        return None;
    }
    let how = match (dependency.all, dependency.success, dependency.failure) {
        (_, true, false) => "to succeed",
        (_, false, true) => "to fail",
        _ => "to end",
    };
    let which = if dependency.all { "all" } else { "any" };
    let named: Vec<String> = dependency.ids.iter().take(MAX_SHOWN).map(|id| words::line(id.as_str())).collect();
    let more = if count > MAX_SHOWN { ", …" } else { "" };
    Some(format!("{which} of {} {how}: {}{more}", words::count(count as u64, "task"), named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_stands_line_by_line_and_what_is_not_is_left_out() {
        let Value::Object(fields) = json!({
            "msg_id": "m_1_2", "state": "error", "queue": "task", "engine_uuid": "e1", "client_uuid": "c", "label": null,
            "submitted": "2026-11-22T10:00:00Z", "started": "2026-11-22T10:00:00.25Z", "completed": "2026-11-22T10:00:02.25Z",
            "header": {"msg_type": "apply_request"}, "content": {"remuda": {"function": "mul"}},
            "metadata": {"after": ["a", "b"], "retries": 2, "timeout": 90},
            "result_content": {"status": "error", "ename": "E", "evalue": "no\u{1b}[2J"}, "stdout": "abc", "stderr": "",
            "remuda": {"request_bytes": 1500, "result_bytes": 20},
        }) else {
            panic!()
        };
        let record = Record { fields, ..Record::default() };
        let text = tell(&record, &[], Date::parse("2026-11-22T10:01:00Z").unwrap(), " --profile x");
        assert_eq!(
            text,
            "\
task m_1_2
  state       error
  error       E: no\\u{1b}[2J
  kind        function
  runs        mul()
  queue       task
  client      c
  engine      (e1)
  submitted   2026-11-22T10:00:00Z (1 min 00 s ago)
  started     2026-11-22T10:00:00.250000Z (it waited 250 ms)
  completed   2026-11-22T10:00:02.250000Z (it ran 2.00 s)
  after       all of 2 tasks to succeed: a, b
  retries     2
  timeout     1 min 30 s
  size        request 1.5 kB, result 20 B
  output      stdout 3 B, stderr 0 B
  see also    remuda task result m_1_2 --profile x
"
        );
        let bare = Record { fields: json!({"msg_id": "m"}).as_object().unwrap().clone(), ..Record::default() };
        assert_eq!(tell(&bare, &[], Date(0), "").lines().count(), 3);
    }
}
