//! What a reply says: results, and the errors that come in their place.

use std::sync::Arc;

use bytes::Bytes;
use remuda_proto::message::Header;
use remuda_proto::message::native::{ApplyReplyContent, NativeReply, ProcessOutcome, StopReason};
use remuda_proto::{Date, EngineId, EngineUuid, Map, MsgId, Packer, RemoteError, Status, value};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{DecodeError, Dependency, TaskError};
use crate::outstanding::{Outcome, Reply};
use crate::pickle;

/// How a program ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessResult {
    /// Its exit code or signal, how long it ran, and what was left out of its output.
    pub outcome: ProcessOutcome,
    /// What it wrote to stdout.
    pub stdout: Bytes,
    /// What it wrote to stderr.
    pub stderr: Bytes,
    /// Its result, if the task had an `output`.
    pub output: Option<Bytes>,
}

impl ProcessResult {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.outcome.success()
    }

    /// What it gave: its result, if the task had an `output`, else what it wrote to stdout.
    pub fn result(&self) -> &Bytes {
        self.output.as_ref().unwrap_or(&self.stdout)
    }

    /// How many bytes of [`Self::result`] were left out, because they went beyond the limit of the engine.
    pub fn result_dropped_bytes(&self) -> u64 {
        let outcome = &self.outcome;
        if self.output.is_some() { outcome.output_dropped_bytes } else { outcome.stdout_dropped_bytes }
    }

    /// What it wrote to stdout, with `U+FFFD` for what is no UTF-8.
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// What it wrote to stderr, with `U+FFFD` for what is no UTF-8.
    pub fn stderr_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// Turns a program that did not exit with 0 into an error, which holds all that there is to know of it.
    ///
    /// # Errors
    /// When it did not exit with 0.
    pub fn checked(self) -> Result<Self, ProcessFailed> {
        if self.success() { Ok(self) } else { Err(ProcessFailed(Box::new(self))) }
    }
}

/// A program that did not exit with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFailed(pub Box<ProcessResult>);

impl std::fmt::Display for ProcessFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.outcome.stopped {
            Some(StopReason::RunTimeout) => f.write_str("it ran for longer than it may: ")?,
            Some(StopReason::Asked) => f.write_str("it was stopped: ")?,
            None => {}
        }
        match (self.0.outcome.exit_code, self.0.outcome.signal) {
            (Some(code), _) => write!(f, "the program exited with code {code}"),
            (None, Some(signal)) => write!(f, "the program was ended by signal {signal}"),
            (None, None) => f.write_str("the program ended in a way that is not known"),
        }
    }
}

impl std::error::Error for ProcessFailed {}

/// What a Python engine says when a code string ran well. What the code printed, and the value of its last expression,
/// are output.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ExecuteResult {
    /// The engine's count of code strings.
    #[serde(default)]
    pub execution_count: u64,
    /// The expressions asked for, each with its value.
    #[serde(default)]
    pub user_expressions: Map<String, Value>,
}

/// What is known of a task that was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The task.
    pub msg_id: MsgId,
    /// How it ended.
    pub status: Status,
    /// When the client submitted it, by the client's clock.
    pub submitted: Option<Date>,
    /// When the engine began it, by the engine's clock.
    pub started: Option<Date>,
    /// When the engine answered, by the engine's clock.
    pub completed: Option<Date>,
    /// When the reply came in, by the client's clock.
    pub received: Date,
    /// The engine that answered; `None` when the controller did.
    pub engine_uuid: Option<EngineUuid>,
    /// That engine's id, if it was still registered when the reply came in.
    pub engine_id: Option<EngineId>,
    /// The word that the task was submitted with.
    pub label: Option<Value>,
}

#[derive(Deserialize)]
struct Started {
    #[serde(default)]
    started: Option<String>,
    #[serde(default)]
    label: Option<Value>,
}

impl Metadata {
    /// Reads what a reply says; what it does not say, or says in a way that makes no sense, is `None`.
    pub fn read(packer: Packer, msg_id: &MsgId, reply: &Reply) -> Self {
        let header: Option<Header> = packer.unpack(reply.body.header()).ok();
        let parent: Option<Header> = packer.unpack(reply.body.parent_header()).ok();
        let metadata: Option<Started> = packer.unpack(reply.body.metadata()).ok();
        let (started, label) = metadata.map_or((None, None), |metadata| (metadata.started, metadata.label));
        Self {
            msg_id: msg_id.clone(),
            status: reply.status,
            submitted: parent.and_then(|header| Date::parse(&header.date)),
            started: started.and_then(|date| Date::parse(&date)),
            completed: header.and_then(|header| Date::parse(&header.date)),
            received: reply.received,
            engine_uuid: reply.engine.clone(),
            engine_id: reply.engine_id,
            label,
        }
    }
}

/// Reads a result of one kind from the reply to a task that did not fail, or, for programs, that did.
pub type Decode<T> = fn(Packer, &Reply) -> Result<T, DecodeError>;

/// Reads the result of a task with `decode`, or says why there is none.
///
/// # Errors
/// Why there is none.
pub fn result<T>(packer: Packer, msg_id: &MsgId, outcome: &Outcome, decode: Decode<T>) -> Result<T, TaskError> {
    let msg_id = msg_id.clone();
    let reply = match outcome {
        Outcome::Reply(reply) => reply,
        Outcome::EngineLost(engine) => {
            return Err(TaskError::EngineLost { msg_id, engine: Some(engine.uuid.clone()) });
        }
        Outcome::Lost(source) => return Err(TaskError::Lost { msg_id, source: *source }),
        Outcome::Shutdown => return Err(TaskError::Shutdown { msg_id }),
        Outcome::NoAnswer { waited } => return Err(TaskError::Pending { msg_id, waited: *waited }),
        Outcome::Unreadable { reason } => {
            let source = Arc::new(DecodeError::Unreadable(format!("the reply is not understood: {reason}")));
            return Err(TaskError::Decode { msg_id, source });
        }
    };
    // A program that exits with another code than 0 has failed for schedulers and for stock clients, and so has a list of calls
    // of which some failed; here they have results, which say so.
    match reply.status {
        Status::Aborted => return Err(TaskError::Aborted { msg_id }),
        Status::Error if !says_itself(packer, reply) => return Err(failure(packer, msg_id, reply)),
        Status::Error | Status::Ok => {}
    }
    decode(packer, reply).map_err(|source| TaskError::Decode { msg_id, source: Arc::new(source) })
}

fn failure(packer: Packer, msg_id: MsgId, reply: &Reply) -> TaskError {
    let error: Box<RemoteError> = match packer.unpack(reply.body.content()) {
        Ok(error) => error,
        Err(error) => return TaskError::Decode { msg_id, source: Arc::new(error.into()) },
    };
    if error.engine_info.is_some() {
        return TaskError::Remote(error);
    }
    // What the task scheduler says in place of an engine (`controller/task_scheduler.py: fail_unreachable`).
    match &*error.ename {
        "EngineError" => TaskError::EngineLost { msg_id, engine: reply.engine.clone() },
        "TaskTimeout" => TaskError::TimedOut { msg_id },
        "TaskAborted" => TaskError::Aborted { msg_id },
        "ImpossibleDependency" => TaskError::Unreachable { msg_id, dependency: Dependency::Impossible },
        "InvalidDependency" => TaskError::Unreachable { msg_id, dependency: Dependency::Invalid },
        _ => TaskError::Remote(error),
    }
}

/// Whether a reply that says the task has failed holds a result all the same.
fn says_itself(packer: Packer, reply: &Reply) -> bool {
    matches!(native(packer, reply), Ok(Some(NativeReply::Process(_) | NativeReply::Map(_))))
}

fn native(packer: Packer, reply: &Reply) -> Result<Option<NativeReply>, DecodeError> {
    Ok(packer.unpack::<ApplyReplyContent>(reply.body.content())?.remuda)
}

fn buffer(reply: &Reply, index: usize) -> Result<Bytes, DecodeError> {
    reply.body.buffer(index).ok_or(DecodeError::NoBuffer { index })
}

/// The last buffer, which is a native engine's result, and all of them if something stands beside it.
fn value_buffers(reply: &Reply) -> Result<(Bytes, Vec<Bytes>), DecodeError> {
    /// A pickle, and the value.
    const ALONE: usize = 2;
    let count = reply.body.buffer_count();
    let all = if count > ALONE { (0..count).map_while(|index| reply.body.buffer(index)).collect() } else { Vec::new() };
    Ok((buffer(reply, count.max(ALONE) - 1)?, all))
}

/// The result of a function: as MessagePack from a native engine, else pickled.
///
/// # Errors
/// When it is the reply to a task of another kind, or holds another type.
pub fn function<T: DeserializeOwned>(packer: Packer, reply: &Reply) -> Result<T, DecodeError> {
    match native(packer, reply)? {
        Some(NativeReply::Function) => {
            let (value, buffers) = value_buffers(reply)?;
            Ok(value::read(&value, &buffers)?)
        }
        Some(NativeReply::Process(_) | NativeReply::Map(_)) => Err(DecodeError::OtherKind { expected: "function" }),
        None => pickled(packer, reply),
    }
}

/// What came of each call of a list.
pub type Calls<T> = Vec<Result<T, Box<RemoteError>>>;

/// The results of a function that was called for each argument of a list.
///
/// # Errors
/// When it is the reply to a task of another kind, or holds another type.
pub fn calls<T: DeserializeOwned>(packer: Packer, reply: &Reply) -> Result<Calls<T>, DecodeError> {
    let Some(NativeReply::Map(_)) = native(packer, reply)? else {
        return Err(DecodeError::OtherKind { expected: "map" });
    };
    let (entries, buffers) = value_buffers(reply)?;
    let one = |entry: &[u8]| match entry {
        [0x91, result @ ..] => Ok(Ok(value::read(result, &buffers)?)),
        error => Ok(Err(value::read(error, &[])?)),
    };
    value::split(&entries)?.into_iter().map(one).collect()
}

/// A pickled result, as every engine gives: a stock engine nothing else, a native one beside its own form.
///
/// # Errors
/// What [`pickle::read`] refuses.
pub fn pickled<T: DeserializeOwned>(_packer: Packer, reply: &Reply) -> Result<T, DecodeError> {
    buffer(reply, 0)?;
    let buffers: Vec<Bytes> = (0..reply.body.buffer_count()).map_while(|index| reply.body.buffer(index)).collect();
    Ok(pickle::read(&buffers)?)
}

/// How a program ended.
///
/// # Errors
/// When it is the reply to a task of another kind.
pub fn process(packer: Packer, reply: &Reply) -> Result<ProcessResult, DecodeError> {
    let Some(NativeReply::Process(outcome)) = native(packer, reply)? else {
        return Err(DecodeError::OtherKind { expected: "program" });
    };
    let output = reply.body.buffer(3);
    Ok(ProcessResult { outcome, stdout: buffer(reply, 1)?, stderr: buffer(reply, 2)?, output })
}

/// What a Python engine says of a code string.
///
/// # Errors
/// When it makes no sense.
pub fn execute(packer: Packer, reply: &Reply) -> Result<ExecuteResult, DecodeError> {
    Ok(packer.unpack(reply.body.content())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::{Key, Session};
    use serde_json::json;

    fn reply(status: Status, content: &Value, buffers: &[&'static [u8]]) -> Outcome {
        let session = Session::new("s".into(), "u", Key::new(""), Packer::Json, 1);
        let parts = [
            json!({"msg_id": "r", "msg_type": "apply_reply", "date": "2026-11-22T01:37:21Z"}),
            json!({"msg_id": "m", "msg_type": "apply_request", "date": "2026-11-22T01:37:19.5Z"}),
            json!({"started": "2026-11-22T01:37:20Z", "label": "l"}),
            content.clone(),
        ];
        let parts = parts.map(|part| part.to_string());
        let parts = [0, 1, 2, 3].map(|at: usize| parts[at].as_bytes());
        let body = session.sign_parts(parts, buffers.iter().map(|buffer| Bytes::from_static(buffer)));
        let (engine, engine_id) = (Some("e".into()), Some(EngineId(3)));
        Outcome::Reply(Reply { status, engine, engine_id, received: Date(7), body })
    }

    fn read<T>(outcome: &Outcome, decode: Decode<T>) -> Result<T, TaskError> {
        result(Packer::Json, &"m".into(), outcome, decode)
    }

    #[test]
    fn a_native_function_gives_its_messagepack_and_a_stock_one_its_pickle() {
        let native = reply(Status::Ok, &json!({"status": "ok", "remuda": "function"}), &[b"\x80\x04K\x01.", b"\x2a"]);
        assert_eq!(read::<i64>(&native, function).unwrap(), 42);
        assert_eq!(read::<i64>(&native, pickled).unwrap(), 1);
        let stock = reply(Status::Ok, &json!({"status": "ok"}), &[b"\x80\x04K\x06."]);
        assert_eq!(read::<i64>(&stock, function).unwrap(), 6);
        let decode = |error: TaskError| {
            let TaskError::Decode { source, .. } = error else { panic!("{error:?}") };
            source
        };
        let text = read::<String>(&native, function).unwrap_err();
        assert!(matches!(*decode(text), DecodeError::Function(_)));
    }

    #[test]
    fn a_program_that_failed_has_a_result_that_says_so() {
        let content = json!({"status": "error", "ename": "ProcessFailed", "evalue": "", "traceback": [], "engine_info": {},
            "remuda": {"process": {"exit_code": 3, "signal": null, "wall_us": 5}}});
        let ended = read(&reply(Status::Error, &content, &[b"N.", b"out", b"err"]), process).unwrap();
        assert_eq!((ended.outcome.exit_code, &*ended.stdout, &*ended.stderr), (Some(3), &b"out"[..], &b"err"[..]));
        let failed = ended.checked().unwrap_err();
        assert_eq!(failed.to_string(), "the program exited with code 3");
        assert_eq!(failed.0.stdout_text(), "out");
    }

    #[test]
    fn what_the_scheduler_says_is_told_from_what_an_engine_says() {
        let error = |ename: &str, info: Value| {
            let content =
                json!({"status": "error", "ename": ename, "evalue": "v", "traceback": [], "engine_info": info});
            read::<i64>(&reply(Status::Error, &content, &[]), function).unwrap_err()
        };
        assert!(matches!(error("TaskTimeout", json!({})), TaskError::TimedOut { .. }));
        assert!(matches!(error("EngineError", json!({})), TaskError::EngineLost { engine: Some(_), .. }));
        assert!(matches!(
            error("InvalidDependency", json!({})),
            TaskError::Unreachable { dependency: Dependency::Invalid, .. }
        ));
        let info = json!({"engine_uuid": "e", "engine_id": 0, "method": "apply"});
        assert!(matches!(error("TaskTimeout", info), TaskError::Remote(_)));
        assert_eq!(error("ValueError", json!({})).to_string(), "ValueError: v");
    }

    #[test]
    fn a_reply_of_another_kind_or_without_buffers_is_told() {
        let ok = json!({"status": "ok"});
        let source = |error: TaskError| match error {
            TaskError::Decode { source, .. } => source.to_string(),
            other => panic!("{other:?}"),
        };
        let none = || reply(Status::Ok, &ok, &[]);
        assert_eq!(source(read(&none(), process).unwrap_err()), "the reply is not that of a program");
        assert_eq!(source(read::<i64>(&none(), function).unwrap_err()), "the reply has no buffer 0");
        assert!(matches!(read(&reply(Status::Aborted, &ok, &[]), process), Err(TaskError::Aborted { .. })));
    }

    #[test]
    fn metadata_is_put_together_from_three_parts() {
        let Outcome::Reply(reply) = reply(Status::Ok, &json!({"status": "ok"}), &[]) else { unreachable!() };
        let metadata = Metadata::read(Packer::Json, &"m".into(), &reply);
        assert_eq!(metadata.submitted, Date::parse("2026-11-22T01:37:19.5Z"));
        assert_eq!(metadata.started, Date::parse("2026-11-22T01:37:20Z"));
        assert_eq!(metadata.completed, Date::parse("2026-11-22T01:37:21Z"));
        assert_eq!((metadata.engine_id, metadata.label), (Some(EngineId(3)), Some(json!("l"))));
    }

    #[test]
    fn each_call_of_a_list_has_its_own_end() {
        let content = json!({"status": "error", "ename": "ValueError", "evalue": "", "traceback": [],
            "engine_info": {}, "remuda": {"map": {"calls": 2, "failed": 1}}});
        let error = RemoteError::new("ValueError", "no");
        let mut writer = value::Writer::new(1);
        writer.begin_list(2);
        writer.write_entry(&5).unwrap();
        writer.write(&error).unwrap();
        let (entries, _) = writer.finish();
        let entries: &'static [u8] = Box::leak(entries.to_vec().into_boxed_slice());
        let calls = read(&reply(Status::Error, &content, &[b"N.", entries]), calls::<i64>).unwrap();
        assert_eq!(calls, [Ok(5), Err(Box::new(error))]);
    }
}
