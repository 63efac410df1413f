//! `remuda task stats`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use remuda_client::Engine;
use remuda_client::records::Record;
use remuda_proto::Date;
use remuda_proto::message::content::{RecordOrder, RecordSize};
use serde_json::{Value, json};

use super::list::print_json;
use super::source::{Intent, Selection, Source, State, owned};
use super::summary::between;
use super::{filter, say, words};
use crate::args::Format;
use crate::args::task::StatsArgs;
use crate::failure::{Failure, Outcome};
use crate::output::table;

const KEYS: [&str; 8] = ["msg_id", "state", "queue", "engine_uuid", "label", "submitted", "started", "completed"];
/// Most engines and labels in a table: those with the most tasks.
const MAX_GROUPS: usize = 20;

pub(super) async fn run(args: &StatsArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let selection = Selection {
        query: filter::query(&args.filter, &source.engines(), remuda_net::Clock::new().now().date),
        states: filter::states(&args.filter),
        keys: Some(owned(&KEYS)),
        order: RecordOrder::Submitted,
        oldest_first: false,
        limit: (args.limit != 0).then_some(args.limit),
        sizes: true,
    };
    let mut stats = Stats::default();
    source
        .pages(&selection, |page| {
            page.iter().for_each(|record| stats.add(record));
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    let told = stats.tell(&source.engines());
    match args.output {
        Format::Json => print_json(&told)?,
        Format::Table if stats.all.total() == 0 => say("no task on record is like that"),
        Format::Table => print(&told)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts([u64; State::ALL.len()]);

impl Counts {
    fn add(&mut self, state: State) {
        let place = State::ALL.iter().position(|one| *one == state).expect("all states are there");
        self.0[place] += 1;
    }

    fn total(self) -> u64 {
        self.0.iter().sum()
    }

    fn to_value(self) -> Value {
        let states = State::ALL.iter().zip(self.0).map(|(state, count)| (state.name().to_owned(), json!(count)));
        Value::Object([("total".to_owned(), json!(self.total()))].into_iter().chain(states).collect())
    }
}

/// What is added up of records.
#[derive(Debug, Default)]
struct Stats {
    all: Counts,
    /// By uuid.
    engines: BTreeMap<String, Counts>,
    /// By the label as text.
    labels: BTreeMap<String, Counts>,
    waited: Vec<f64>,
    ran: Vec<f64>,
    /// The first submission and the last end of tasks that ended.
    first: Option<Date>,
    last: Option<Date>,
    size: Option<RecordSize>,
}

impl Stats {
    fn add(&mut self, record: &Record) {
        let Some(state) = State::of(record) else { return };
        let text = |name: &str| record.fields.get(name).and_then(Value::as_str);
        let date = |name: &str| text(name).and_then(Date::parse);
        self.all.add(state);
        if let Some(engine) = text("engine_uuid") {
            self.engines.entry(engine.to_owned()).or_default().add(state);
        }
        match record.fields.get("label") {
            None | Some(Value::Null) => {}
            Some(Value::String(label)) => self.labels.entry(words::line(label)).or_default().add(state),
            Some(other) => self.labels.entry(words::line(&other.to_string())).or_default().add(state),
        }
        let [submitted, started, completed] = ["submitted", "started", "completed"].map(date);
        self.waited.extend(between(submitted, started));
        self.ran.extend(between(started, completed));
        if completed.is_some() {
            self.first = self.first.into_iter().chain(submitted).min();
            self.last = self.last.max(completed);
        }
        if let Some(size) =
            record.fields.get("remuda").and_then(|size| serde_json::from_value::<RecordSize>(size.clone()).ok())
        {
            let sum = self.size.get_or_insert_default();
            sum.request_bytes += size.request_bytes;
            sum.result_bytes += size.result_bytes;
        }
    }

    fn tell(&mut self, registered: &[Engine]) -> Value {
        let done: u64 = State::DONE.iter().map(|state| self.count(*state)).sum();
        let span = between(self.first, self.last).filter(|span| *span > 0.0);
        let engines: Vec<Value> = ranked(&self.engines)
            .map(|(uuid, counts)| {
                let id = registered.iter().find(|engine| engine.uuid.as_str() == uuid).and_then(|engine| engine.id);
                let mut told = counts.to_value();
                told["uuid"] = json!(uuid);
                told["id"] = json!(id);
                told
            })
            .collect();
        let labels: Vec<Value> = ranked(&self.labels)
            .map(|(label, counts)| {
                let mut told = counts.to_value();
                told["label"] = json!(label);
                told
            })
            .collect();
        json!({
            "tasks": self.all.to_value(),
            "span_s": span,
            "rate_per_s": span.map(|span| done as f64 / span),
            "waited_s": quantiles(&mut self.waited),
            "ran_s": quantiles(&mut self.ran),
            "bytes": self.size,
            "engines": engines,
            "labels": labels,
        })
    }

    fn count(&self, state: State) -> u64 {
        State::ALL.iter().zip(self.all.0).filter(|(one, _)| **one == state).map(|(_, count)| count).sum()
    }
}

/// Those with the most tasks first.
fn ranked(groups: &BTreeMap<String, Counts>) -> impl Iterator<Item = (&String, &Counts)> {
    let mut ranked: Vec<_> = groups.iter().collect();
    ranked.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.total()));
    ranked.into_iter()
}

/// The median, what 90 and 99 of a hundred are not above, and the most; null if there are none.
fn quantiles(seconds: &mut [f64]) -> Value {
    seconds.sort_by(f64::total_cmp);
    let Some(most) = seconds.last() else { return Value::Null };
    let at = |percent: usize| seconds[(seconds.len() * percent).div_ceil(100).max(1) - 1];
    json!({"median": at(50), "p90": at(90), "p99": at(99), "max": most})
}

fn print(told: &Value) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let tasks = &told["tasks"];
    let counts: Vec<String> = State::ALL
        .iter()
        .filter(|state| tasks[state.name()].as_u64().is_some_and(|count| count > 0))
        .map(|state| format!("{} {}", tasks[state.name()], state.name()))
        .collect();
    writeln!(out, "{}: {}", words::count(tasks["total"].as_u64().unwrap_or_default(), "task"), counts.join(", "))?;
    if let (Some(rate), Some(span)) = (told["rate_per_s"].as_f64(), told["span_s"].as_f64()) {
        writeln!(out, "{rate:.1} done a second, over {}", words::duration(span))?;
    }
    if let Ok(RecordSize { request_bytes, result_bytes }) = serde_json::from_value(told["bytes"].clone()) {
        writeln!(out, "requests {}, results {}", words::bytes(request_bytes), words::bytes(result_bytes))?;
    }
    let times: Vec<Vec<String>> = ["waited", "ran"]
        .iter()
        .filter_map(|name| {
            let of = told[format!("{name}_s")].as_object()?;
            let cells = of.values().map(|seconds| words::duration(seconds.as_f64().unwrap_or_default()));
            Some([(*name).to_owned()].into_iter().chain(cells).collect())
        })
        .collect();
    if !times.is_empty() {
        writeln!(out)?;
        table(&mut out, &["TIME", "MEDIAN", "P90", "P99", "MAX"], &times)?;
    }
    for (name, header) in [("engines", "ENGINE"), ("labels", "LABEL")] {
        let groups = told[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<Vec<String>> = groups.iter().take(MAX_GROUPS).map(row).collect();
        if rows.is_empty() {
            continue;
        }
        writeln!(out)?;
        table(&mut out, &[header, "TASKS", "WAITING", "RUNNING", "OK", "ERROR", "ABORTED", "LOST"], &rows)?;
        if groups.len() > MAX_GROUPS {
            writeln!(out, "… and {} more", groups.len() - MAX_GROUPS)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn row(group: &Value) -> Vec<String> {
    let name = match (&group["id"], group["uuid"].as_str(), group["label"].as_str()) {
        (Value::Number(id), _, _) => id.to_string(),
        (_, Some(uuid), _) => words::line(uuid).chars().take(8).collect(),
        (_, _, label) => label.unwrap_or_default().to_owned(),
    };
    let counts = ["total"].into_iter().chain(State::ALL.map(State::name)).map(|name| group[name].to_string());
    [name].into_iter().chain(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::EngineId;

    fn record(fields: Value) -> Record {
        let Value::Object(fields) = fields else { panic!("{fields}") };
        Record { fields, ..Record::default() }
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        assert_eq!(quantiles(&mut []), Value::Null);
        assert_eq!(quantiles(&mut [5.0]), json!({"median": 5.0, "p90": 5.0, "p99": 5.0, "max": 5.0}));
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantiles(&mut hundred), json!({"median": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}));
    }

    #[test]
    fn tasks_are_counted_by_state_engine_and_label() {
        let mut stats = Stats::default();
        for (state, engine, label, second) in [
            ("ok", "e1", json!("a"), 1),
            ("error", "e2", json!("a"), 2),
            ("ok", "e2", json!(null), 3),
            ("waiting", "", json!(7), 0),
        ] {
            let dates = |at: &str| (second > 0).then(|| format!("2026-11-22T10:00:0{second}{at}Z"));
            let engine = (!engine.is_empty()).then_some(engine);
            stats.add(&record(json!({
                "msg_id": "m", "state": state, "engine_uuid": engine, "label": label,
                "submitted": "2026-11-22T10:00:00Z", "started": dates(""), "completed": dates(".5"),
                "remuda": {"request_bytes": 10, "result_bytes": 1},
            })));
        }
        let told = stats.tell(&[Engine { id: Some(EngineId(4)), uuid: "e1".into() }]);
        assert_eq!(
            told["tasks"],
            json!({"total": 4, "waiting": 1, "running": 0, "ok": 2, "error": 1, "aborted": 0, "lost": 0})
        );
        assert_eq!((&told["span_s"], &told["bytes"]), (&json!(3.5), &json!({"request_bytes": 40, "result_bytes": 4})));
        assert!((told["rate_per_s"].as_f64().unwrap() - 3.0 / 3.5).abs() < 1e-9);
        assert_eq!((&told["waited_s"]["median"], &told["ran_s"]["max"]), (&json!(2.0), &json!(0.5)));
        let engines: Vec<_> =
            told["engines"].as_array().unwrap().iter().map(|engine| (&engine["uuid"], &engine["id"])).collect();
        assert_eq!(engines, [(&json!("e2"), &Value::Null), (&json!("e1"), &json!(4))]);
        assert_eq!(row(&told["engines"][1]), ["4", "1", "0", "0", "1", "0", "0", "0"]);
        assert_eq!((&told["labels"][0]["label"], &told["labels"][1]["label"]), (&json!("a"), &json!("7")));
    }
}
