//! What there is to say of a task in a line.

use remuda_client::records::Record;
use remuda_client::{Engine, RemoteError};
use remuda_proto::Date;
use remuda_proto::message::native::{ApplyContent, NativeTask};
use serde::Serialize;
use serde_json::Value;

use super::source::State;
use super::words;

/// The fields of a record from which a summary is made.
pub(super) const KEYS: [&str; 12] = [
    "msg_id",
    "state",
    "queue",
    "engine_uuid",
    "client_uuid",
    "label",
    "submitted",
    "started",
    "completed",
    "header",
    "content",
    "result_content",
];

/// What there is to say of a task in a line. As JSON it is what `--output json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Its id.
    pub(super) msg_id: String,
    /// `waiting`, `running`, `ok`, `error` or `aborted`.
    pub(super) state: String,
    /// The scheduler that took it.
    pub(super) queue: Option<String>,
    /// `process`, `function`, `apply` or `execute`.
    pub(super) kind: Option<String>,
    /// What it runs, as far as that can be told.
    pub(super) task: Option<String>,
    /// The engine that has or had it.
    pub(super) engine_uuid: Option<String>,
    /// That engine's id, while it is registered.
    pub(super) engine_id: Option<u32>,
    /// The session of its client.
    pub(super) client: Option<String>,
    /// The client's own word for it.
    pub(super) label: Option<Value>,
    /// When the client made it, by its clock.
    pub(super) submitted: Option<Date>,
    /// When the engine began it, by its clock.
    pub(super) started: Option<Date>,
    /// When the engine ended it, by its clock.
    pub(super) completed: Option<Date>,
    /// From submission to start, in seconds.
    pub(super) waited_s: Option<f64>,
    /// From start to end, in seconds.
    pub(super) ran_s: Option<f64>,
    /// Why it failed.
    pub(super) error: Option<String>,
}

impl Summary {
    pub(super) fn of(record: &Record, engines: &[Engine]) -> Self {
        let field = |name: &str| record.fields.get(name).filter(|value| !value.is_null());
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let date = |name: &str| field(name).and_then(Value::as_str).and_then(Date::parse);
        let engine_uuid = text("engine_uuid");
        let engine = engines.iter().find(|engine| Some(engine.uuid.as_str()) == engine_uuid.as_deref());
        let [submitted, started, completed] = ["submitted", "started", "completed"].map(date);
        let (kind, task) = what(field("header"), field("content")).unzip();
        let state = State::of(record);
        Self {
            msg_id: text("msg_id").unwrap_or_default(),
            state: text("state").unwrap_or_default(),
            queue: text("queue"),
            kind,
            task: task.flatten(),
            engine_uuid,
            engine_id: engine.and_then(|engine| engine.id).map(|id| id.0),
            client: text("client_uuid"),
            label: field("label").cloned(),
            submitted,
            started,
            completed,
            waited_s: between(submitted, started),
            ran_s: between(started, completed),
            error: (state == Some(State::Error)).then(|| error(field("result_content"))).flatten(),
        }
    }

    /// What it runs, and why it failed: on one line.
    pub(super) fn words(&self) -> String {
        let task = self.task.as_deref().or(self.kind.as_deref()).unwrap_or("-");
        match &self.error {
            Some(error) => words::line(&format!("{task}: {error}")),
            None => words::line(task),
        }
    }

    /// The engine by its id, or the beginning of its uuid.
    pub(super) fn engine(&self) -> String {
        match (self.engine_id, &self.engine_uuid) {
            (Some(id), _) => id.to_string(),
            (None, Some(uuid)) => words::line(uuid).chars().take(8).collect(),
            (None, None) => "-".to_owned(),
        }
    }

    /// The label; empty without one.
    pub(super) fn label(&self) -> String {
        match &self.label {
            None => String::new(),
            Some(Value::String(label)) => words::line(label),
            Some(other) => words::line(&other.to_string()),
        }
    }
}

/// The seconds from one date to another. Clocks of clients and engines may be off: never below 0.
pub(super) fn between(from: Option<Date>, to: Option<Date>) -> Option<f64> {
    Some((to?.0 - from?.0).max(0) as f64 / 1e6)
}

/// The kind of a task, and what it runs.
fn what(header: Option<&Value>, content: Option<&Value>) -> Option<(String, Option<String>)> {
    let msg_type = header?.get("msg_type")?.as_str()?;
    if msg_type == "execute_request" {
        let code = content.and_then(|content| content.get("code")).and_then(Value::as_str);
        let first = code.map(|code| code.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default());
        return Some(("execute".to_owned(), first.map(str::to_owned)));
    }
    if msg_type != "apply_request" {
        return Some((msg_type.to_owned(), None));
    }
    let native = content
        .and_then(|content| serde_json::from_value::<ApplyContent>(content.clone()).ok())
        .and_then(|of| of.remuda);
    Some(match native {
        Some(NativeTask::Process(process)) => ("process".to_owned(), Some(words::command(&process.argv))),
        Some(NativeTask::Function(name)) => ("function".to_owned(), Some(format!("{name}()"))),
        Some(NativeTask::Map(name)) => ("function".to_owned(), Some(format!("{name}() for each of a list"))),
        // The function is pickled: its name is Python's to read.
        None => ("apply".to_owned(), None),
    })
}

/// Why it failed, in a line.
fn error(content: Option<&Value>) -> Option<String> {
    let error: RemoteError = serde_json::from_value(content?.clone()).ok()?;
    let text = error.to_string();
    Some(text.trim_end_matches([':', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::EngineId;
    use serde_json::json;

    fn record(fields: Value) -> Record {
        let Value::Object(fields) = fields else { panic!("{fields}") };
        Record { fields, ..Record::default() }
    }

    #[test]
    fn a_program_that_failed_is_told_with_its_error_and_its_engine() {
        let record = record(json!({
            "msg_id": "m", "state": "error", "queue": "task", "engine_uuid": "e1", "client_uuid": "c", "label": "sweep",
            "submitted": "2026-11-22T10:00:00Z", "started": "2026-11-22T10:00:01.5Z", "completed": "2026-11-22T10:00:01Z",
            "header": {"msg_type": "apply_request"}, "content": {"remuda": {"process": {"argv": ["ls", "a b"]}}},
            "result_content": {"status": "error", "ename": "ProcessFailed", "evalue": "exited with code 2"},
        }));
        let summary = Summary::of(&record, &[Engine { id: Some(EngineId(3)), uuid: "e1".into() }]);
        assert_eq!(summary.words(), "ls 'a b': ProcessFailed: exited with code 2");
        assert_eq!(
            (summary.engine(), summary.label(), summary.kind.as_deref()),
            ("3".into(), "sweep".into(), Some("process"))
        );
        assert_eq!(
            (summary.waited_s, summary.ran_s),
            (Some(1.5), Some(0.0)),
            "clocks that are off give no time below 0"
        );
        assert_eq!(Summary::of(&record, &[]).engine(), "e1");
    }

    #[test]
    fn what_a_task_runs_is_told_as_far_as_it_can_be() {
        for (msg_type, content, words) in [
            ("apply_request", json!({"remuda": {"function": "mul"}}), "mul()"),
            ("apply_request", json!({}), "apply"),
            ("apply_request", json!({"remuda": 5}), "apply"),
            ("execute_request", json!({"code": "\n  import os\nprint(1)"}), "import os"),
            ("execute_request", json!({}), "execute"),
            ("odd_request", json!({}), "odd_request"),
        ] {
            let record = record(
                json!({"msg_id": "m", "state": "waiting", "header": {"msg_type": msg_type}, "content": content}),
            );
            assert_eq!(Summary::of(&record, &[]).words(), words, "{msg_type} {content}");
        }
    }

    #[test]
    fn a_record_with_little_in_it_has_a_summary() {
        let summary = Summary::of(&record(json!({"msg_id": "m"})), &[]);
        assert_eq!((summary.words(), summary.engine(), summary.label()), ("-".into(), "-".into(), String::new()));
        let odd =
            record(json!({"msg_id": "m", "state": "error", "label": [1], "result_content": {}, "engine_uuid": null}));
        let summary = Summary::of(&odd, &[]);
        assert_eq!((summary.error.clone(), summary.label()), (None, "[1]".to_owned()));
    }
}
