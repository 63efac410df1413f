//! `remuda task result`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use remuda_client::records::Record;
use remuda_client::{RemoteError, plain};
use remuda_proto::message::native::{ApplyReplyContent, NativeReply};
use serde_json::{Value, json};

use super::source::{Intent, Selection, Source, State};
use super::{say, words};
use crate::args::task::ResultArgs;
use crate::failure::{Failure, Outcome};
use crate::output::has_colours;

const KEYS: [&str; 5] = ["msg_id", "state", "result_content", "execute_result", "result_buffers"];

pub(super) async fn run(args: &ResultArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let ids = source.tasks(std::slice::from_ref(&args.task)).await?;
    let records = source.records(&Selection::tasks(&ids, &KEYS)).await?;
    let options = args.source.place.options();
    if let [_, _, ..] = &records[..] {
        let copies: Vec<&str> = ids.iter().map(remuda_client::MsgId::as_str).collect();
        return Err(Failure::new(anyhow::anyhow!("`{}` is a broadcast: each engine has its own result", args.task))
            .hint(format!("name one of its copies:\n  {}", copies.join("\n  "))));
    }
    let record =
        records.first().ok_or_else(|| Failure::new(anyhow::anyhow!("task `{}` has just been purged", args.task)))?;
    let id = record.fields.get("msg_id").and_then(Value::as_str).unwrap_or_default();
    match State::of(record) {
        Some(State::Ok | State::Error) => {}
        Some(State::Aborted) => return Err(Failure::new(anyhow::anyhow!("task `{id}` was aborted: it has no result"))),
        Some(State::Lost) => {
            return Err(Failure::new(anyhow::anyhow!("task `{id}` was lost with its controller: it has no result"))
                .hint(format!("`remuda task resubmit {id}{options}` runs it once more")));
        }
        state => {
            let state = state.map_or("not done", State::name);
            let hint = format!("`remuda task output --follow {id}{options}` waits for its end");
            return Err(Failure::new(anyhow::anyhow!("task `{id}` is {state}: it has no result yet")).hint(hint));
        }
    }
    let has_failed = State::of(record) == Some(State::Error);
    if let Some(path) = &args.raw {
        write_raw(path, &record.result_buffers, args.buffer)?;
    } else {
        match value(record) {
            Told::Value(value) => {
                let mut out = io::stdout().lock();
                writeln!(out, "{value:#}")?;
            }
            Told::Error(error) => print_error(&error),
            Told::Opaque(why) => {
                let bytes: usize = record.result_buffers.iter().map(Bytes::len).sum();
                let buffers = words::count(record.result_buffers.len() as u64, "buffer");
                return Err(Failure::new(anyhow::anyhow!("{why}: {} in {buffers}", words::bytes(bytes as u64)))
                    .hint(format!("`remuda task result --raw FILE {id}{options}` writes its bytes; Python reads it")));
            }
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What can be told of a result.
#[derive(Debug, PartialEq)]
enum Told {
    /// It.
    Value(Value),
    /// The error in its place.
    Error(Box<RemoteError>),
    /// That it cannot be read here, and why.
    Opaque(String),
}

fn value(record: &Record) -> Told {
    let content = record.fields.get("result_content").cloned().unwrap_or_default();
    let native = serde_json::from_value::<ApplyReplyContent>(content.clone()).ok().and_then(|content| content.remuda);
    let buffer = |index: usize| record.result_buffers.get(index).map(|bytes| &bytes[..]);
    if let Some(NativeReply::Process(ended)) = native {
        let text = |index: usize| String::from_utf8_lossy(buffer(index).unwrap_or_default()).into_owned();
        return Told::Value(json!({
            "exit_code": ended.exit_code,
            "signal": ended.signal,
            "wall_s": ended.wall_us as f64 / 1e6,
            "stdout": text(1),
            "stderr": text(2),
        }));
    }
    if State::of(record) == Some(State::Error) {
        return match serde_json::from_value(content) {
            Ok(error) => Told::Error(error),
            Err(_) => Told::Error(Box::new(RemoteError::new("Error", "the reply does not say what went wrong"))),
        };
    }
    // Behind the pickle.
    let own = record.result_buffers.get(1..).and_then(<[_]>::last);
    let read = match (native, buffer(0), own) {
        (Some(NativeReply::Function), _, Some(value)) => plain::from_messagepack(value, &record.result_buffers),
        (Some(NativeReply::Map(_)), _, Some(list)) => {
            plain::from_messagepack(list, &record.result_buffers).map(each_call)
        }
        (_, Some(_), _) => plain::from_pickle(&record.result_buffers),
        // A code string gives no buffers; the value of its last expression is output.
        (_, None, _) => {
            let shown = record.fields.get("execute_result").map(|result| match result {
                // The database of a stock controller gives it as text.
                Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
                result => result.clone(),
            });
            let text = shown.as_ref().and_then(|shown| shown.get("data")?.get("text/plain"));
            return Told::Value(text.cloned().unwrap_or_default());
        }
    };
    match read {
        Ok(value) => Told::Value(value),
        Err(error) => {
            let why = std::error::Error::source(&error).map(|cause| format!(" ({cause})")).unwrap_or_default();
            Told::Opaque(format!("the result is a pickle that only Python can read{why}"))
        }
    }
}

/// The results of calls that all gave one, each of which stands in a list of its own.
fn each_call(calls: Value) -> Value {
    let one = |call| match call {
        Value::Array(mut result) if result.len() == 1 => result.swap_remove(0),
        other => other,
    };
    match calls {
        Value::Array(calls) => calls.into_iter().map(one).collect(),
        other => other,
    }
}

/// The traceback as the engine made it, else the error alone.
fn print_error(error: &RemoteError) {
    let coloured = io::stderr().is_terminal() && has_colours();
    let traceback = error.traceback.join("\n");
    let text = words::lines(traceback.trim_end(), coloured);
    if !text.is_empty() {
        say(&text);
    }
    let last = words::lines(&error.to_string(), false);
    if !words::lines(&traceback, false).contains(last.trim_end_matches([' ', ':'])) {
        say(&last);
    }
}

/// Writes the bytes of a result.
fn write_raw(path: &Path, buffers: &[Bytes], only: Option<usize>) -> Result<(), Failure> {
    let wanted = match only {
        None => buffers,
        Some(index) => std::slice::from_ref(buffers.get(index).ok_or_else(|| {
            Failure::usage(format!(
                "the result has no buffer {index}: it has {}",
                words::count(buffers.len() as u64, "buffer")
            ))
            .hint("they are counted from 0")
        })?),
    };
    let sizes: Vec<String> = wanted.iter().map(|bytes| bytes.len().to_string()).collect();
    if path == Path::new("-") {
        let mut out = io::stdout().lock();
        wanted.iter().try_for_each(|bytes| out.write_all(bytes))?;
        out.flush()?;
    } else {
        let whole: Vec<u8> = wanted.iter().flat_map(|bytes| bytes.iter().copied()).collect();
        fs::write(path, whole).map_err(|error| {
            let what = format!("cannot write the result to `{}`", path.display());
            Failure::new(anyhow::Error::new(error).context(what)).hint("name another file with `--raw`")
        })?;
    }
    if wanted.len() > 1 {
        say(&format!("{} buffers, of {} bytes: `--buffer N` writes one of them", wanted.len(), sizes.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, content: &Value, buffers: &[&'static [u8]]) -> Record {
        let Value::Object(fields) = json!({"msg_id": "m", "state": state, "result_content": content}) else { panic!() };
        let result_buffers = buffers.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        Record { fields, result_buffers, ..Record::default() }
    }

    #[test]
    fn values_are_read_from_whichever_form_they_have() {
        let function =
            record("ok", &json!({"status": "ok", "remuda": "function"}), &[b"\x80\x04K\x01.", b"\x93\x01\xc0\xa1x"]);
        assert_eq!(value(&function), Told::Value(json!([1, null, "x"])));
        let stock = record("ok", &json!({"status": "ok"}), &[b"\x80\x04K\x2a."]);
        assert_eq!(value(&stock), Told::Value(json!(42)));
        let mut code = record("ok", &json!({"status": "ok"}), &[]);
        assert_eq!(value(&code), Told::Value(Value::Null));
        let shown = json!({"data": {"text/plain": "42"}, "metadata": {}});
        for shown in [shown.clone(), shown.to_string().into()] {
            code.fields.insert("execute_result".to_owned(), shown);
            assert_eq!(value(&code), Told::Value("42".into()));
        }
        let outcome = json!({"status": "error", "ename": "ProcessFailed", "remuda": {"process": {"exit_code": 3, "signal": null, "wall_us": 1500}}});
        let program = record("error", &outcome, &[b"N.", b"out", b"\xff"]);
        let told = json!({"exit_code": 3, "signal": null, "wall_s": 0.0015, "stdout": "out", "stderr": "\u{fffd}"});
        assert_eq!(value(&program), Told::Value(told));
    }

    #[test]
    fn what_only_python_can_read_is_said_to_be_that() {
        let object = record("ok", &json!({"status": "ok"}), &[b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93."]);
        let Told::Opaque(why) = value(&object) else { panic!() };
        assert!(why.contains("numpy.ndarray"), "{why}");
        assert!(matches!(value(&record("ok", &json!({"remuda": "function"}), &[b"garbage"])), Told::Opaque(_)));
    }

    #[test]
    fn an_error_is_told_even_if_the_reply_does_not() {
        let failed = record("error", &json!({"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}), &[]);
        let Told::Error(error) = value(&failed) else { panic!() };
        assert_eq!((error.to_string(), &*error.traceback), ("E: v".to_owned(), &["t".to_owned()][..]));
        assert!(matches!(value(&record("error", &json!(5), &[])), Told::Error(_)));
    }

    #[test]
    fn raw_bytes_are_written_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        let buffers = [Bytes::from_static(b"a\xff"), Bytes::from_static(b"bc")];
        assert!(write_raw(&path, &buffers, None).is_ok());
        assert_eq!(fs::read(&path).unwrap(), b"a\xffbc");
        assert!(write_raw(&path, &buffers, Some(1)).is_ok());
        assert_eq!(fs::read(&path).unwrap(), b"bc");
        assert!(write_raw(&path, &buffers, Some(2)).is_err());
        assert!(write_raw(folder.path(), &buffers, None).is_err());
    }
}
