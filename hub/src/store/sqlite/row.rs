//! Records as rows, and back.

use bytes::Bytes;
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, BodyBuilder, Date, EngineUuid, Identity, MsgId, Packer};
use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type, Value, ValueRef};

use crate::record::{Outcome, OutputPiece, TaskOutput, TaskRecord, TaskState, all_buffers};
use crate::store::Buffers;

/// The columns of a new row, in the order of [`of_record`].
const INSERTED: [&str; 30] = [
    "msg_id",
    "packer",
    "queue",
    "client_uuid",
    "engine_uuid",
    "label",
    "submitted",
    "resubmitted",
    "header",
    "metadata",
    "content",
    "execute_input",
    "execute_result",
    "error",
    "display_data",
    "stdout",
    "stderr",
    "reply_to",
    "arrived",
    "tried",
    "retries",
    "buffers",
    FINISHED[0],
    FINISHED[1],
    FINISHED[2],
    FINISHED[3],
    FINISHED[4],
    FINISHED[5],
    FINISHED[6],
    FINISHED[7],
];

/// The columns that a reply fills, in the order of [`of_outcome`].
const FINISHED: [&str; 8] = [
    "started",
    "completed",
    "received",
    "state",
    "result_header",
    "result_metadata",
    "result_content",
    "result_buffers",
];

/// The columns that are read, in the order of [`read`]; the two of buffers follow.
const READ: &str = "msg_id, packer, queue, engine_uuid, resubmitted, header, metadata, content, received, result_header, \
                    result_metadata, result_content, execute_input, execute_result, error, display_data, stdout, stderr, state, \
                    reply_to, arrived, tried, retries";

/// The names of the columns of a new row, and as many question marks.
pub(super) fn inserted() -> (String, String) {
    (INSERTED.join(", "), INSERTED.map(|_| "?").join(", "))
}

/// The assignments of a reply.
pub(super) fn finished() -> String {
    FINISHED.map(|column| format!("{column} = ?")).join(", ")
}

/// What to select for [`read`]. Of buffers that are not wanted the size alone, for which SQLite does not read them.
pub(super) fn columns(buffers: Buffers) -> String {
    let of = |wanted: bool, column: &'static str| if wanted { column.to_owned() } else { format!("length({column})") };
    format!("{READ}, {}, {}", of(buffers.requests, "buffers"), of(buffers.results, "result_buffers"))
}

/// The values of [`INSERTED`].
pub(super) fn of_record(record: &TaskRecord) -> Vec<Value> {
    let packer = record.packer;
    let (request, output) = (&record.request, &record.output);
    let label = match record.label() {
        Some(serde_json::Value::String(label)) => Value::Text(label),
        _ => Value::Null,
    };
    let optional = |content: &Option<Bytes>| content.as_ref().map_or(Value::Null, |content| packed(packer, content));
    let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.to_owned()));
    let mut values = vec![
        self::text(&record.msg_id),
        Value::Text(packer.name().to_owned()),
        Value::Text(record.queue.name().to_owned()),
        text(record.client().as_deref()),
        text(record.engine.as_ref().map(EngineUuid::as_str)),
        label,
        date(record.submitted()),
        text(record.resubmitted.as_ref().map(MsgId::as_str)),
        packed(packer, request.header()),
        packed(packer, request.metadata()),
        packed(packer, request.content()),
        text(output.execute_input.as_deref()),
        optional(&output.execute_result),
        optional(&output.error),
        optional(&output.display_data),
        Value::Text(output.stdout.clone()),
        Value::Text(output.stderr.clone()),
        record.reply_to.as_ref().map_or(Value::Null, |client| Value::Blob(client.as_bytes().to_vec())),
        date(Some(record.arrived)),
        of_tried(&record.tried),
        record.retries.map_or(Value::Null, |retries| Value::Integer(retries.into())),
        of_buffers(request),
    ];
    match &record.outcome {
        Some(outcome) => values.extend(of_outcome(packer, outcome)),
        None => values.extend(FINISHED.map(|column| match column {
            "state" => of_state(record.state()),
            _ => Value::Null,
        })),
    }
    values
}

/// The values of [`FINISHED`].
pub(super) fn of_outcome(packer: Packer, outcome: &Outcome) -> [Value; 8] {
    let body = &outcome.body;
    [
        date(outcome.started(packer)),
        date(Some(outcome.completed(packer))),
        date(Some(outcome.received)),
        of_state(TaskState::Ended(outcome.status)),
        packed(packer, body.header()),
        packed(packer, body.metadata()),
        packed(packer, body.content()),
        of_buffers(body),
    ]
}

/// The column of a piece of output, whether it is appended there, and its value.
pub(super) fn of_piece(packer: Packer, piece: OutputPiece) -> (&'static str, bool, Value) {
    match piece {
        OutputPiece::Stdout(text) => ("stdout", true, Value::Text(text)),
        OutputPiece::Stderr(text) => ("stderr", true, Value::Text(text)),
        OutputPiece::ExecuteInput(code) => ("execute_input", false, Value::Text(code)),
        OutputPiece::ExecuteResult(content) => ("execute_result", false, packed(packer, &content)),
        OutputPiece::DisplayData(content) => ("display_data", false, packed(packer, &content)),
        OutputPiece::Error(content) => ("error", false, packed(packer, &content)),
    }
}

/// The engines that tried a task, as a list in JSON.
pub(super) fn of_tried(tried: &[EngineUuid]) -> Value {
    match tried {
        [] => Value::Null,
        tried => Value::Text(tried.iter().map(EngineUuid::as_str).collect::<serde_json::Value>().to_string()),
    }
}

/// The name of a state.
pub(super) fn of_state(state: TaskState) -> Value {
    Value::Text(state.name().to_owned())
}

/// An id.
pub(super) fn text(msg_id: &MsgId) -> Value {
    Value::Text(msg_id.as_str().to_owned())
}

/// Reads a row of [`columns`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    let packer = packer(row, 1)?;
    let queue = queue(row, 2)?;
    let state: String = row.get(18)?;
    let state = TaskState::from_name(&state).ok_or_else(|| unknown(18, &format!("no state is called `{state}`")))?;
    let received: Option<i64> = row.get(8)?;
    let outcome = match (received, state) {
        (None, _) => None,
        (Some(received), TaskState::Ended(status)) => {
            Some(Outcome { body: message(row, packer, [9, 10, 11], Some(24))?, received: Date(received), status })
        }
        (Some(_), state) => return Err(unknown(18, &format!("it has a reply, and is {}", state.name()))),
    };
    let tried: Option<String> = row.get(21)?;
    let tried: Vec<EngineUuid> = match tried {
        None => Vec::new(),
        Some(tried) => serde_json::from_str(&tried).map_err(|error| unknown(21, &error.to_string()))?,
    };
    let content = |at: usize| Ok::<_, rusqlite::Error>(part(row, at)?.map(Bytes::copy_from_slice));
    Ok(TaskRecord {
        msg_id: MsgId::from(row.get::<_, String>(0)?),
        packer,
        queue,
        engine: row.get::<_, Option<String>>(3)?.map(EngineUuid::from),
        reply_to: part(row, 19)?.map(Identity::from),
        arrived: Date(row.get(20)?),
        tried,
        retries: row.get(22)?,
        lost: state == TaskState::Lost,
        request: message(row, packer, [5, 6, 7], Some(23))?,
        outcome,
        resubmitted: row.get::<_, Option<String>>(4)?.map(MsgId::from),
        output: TaskOutput {
            stdout: row.get(16)?,
            stderr: row.get(17)?,
            execute_input: row.get(12)?,
            execute_result: content(13)?,
            display_data: content(15)?,
            error: content(14)?,
        },
        unread_bytes: (unread(row, 23)?, unread(row, 24)?),
    })
}

/// The size of buffers that were not asked for.
fn unread(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(size) => u64::try_from(size).unwrap_or_default(),
        _ => 0,
    })
}

/// Reads the name of a queue.
pub(super) fn queue(row: &Row<'_>, at: usize) -> rusqlite::Result<Queue> {
    let queue: String = row.get(at)?;
    Queue::from_name(&queue).ok_or_else(|| unknown(at, &format!("no queue is called `{queue}`")))
}

/// Reads the name of a packer.
pub(super) fn packer(row: &Row<'_>, at: usize) -> rusqlite::Result<Packer> {
    let name: String = row.get(at)?;
    Packer::from_name(&name).map_err(|error| unknown(at, &error.to_string()))
}

/// A message whose parts are kept in these columns, and its buffers in that one. Its signature and its parent are not
/// kept: nobody is sent it as it is.
pub(super) fn message(
    row: &Row<'_>,
    packer: Packer,
    parts: [usize; 3],
    buffers: Option<usize>,
) -> rusqlite::Result<Body> {
    let [header, metadata, content] = parts;
    let mut builder = BodyBuilder::default();
    builder.push(&[]);
    builder.push(part(row, header)?.unwrap_or_default());
    builder.push(packer.empty_map());
    builder.push(part(row, metadata)?.unwrap_or_default());
    builder.push(part(row, content)?.unwrap_or_default());
    if let Some(at) = buffers
        && let ValueRef::Blob(bytes) = row.get_ref(at)?
    {
        let buffers = to_buffers(bytes).ok_or_else(|| unknown(at, "the buffers are cut short"))?;
        buffers.into_iter().for_each(|buffer| builder.push(buffer));
    }
    builder.finish().map_err(|error| unknown(header, &error.to_string()))
}

/// The bytes of a text or a blob; `None` for null.
fn part<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a [u8]>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes)),
        other => {
            Err(rusqlite::Error::FromSqlConversionFailure(at, other.data_type(), Box::new(FromSqlError::InvalidType)))
        }
    }
}

fn unknown(at: usize, reason: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, reason.to_owned().into())
}

fn date(date: Option<Date>) -> Value {
    date.map_or(Value::Null, |date| Value::Integer(date.0))
}

/// A packed part: as text where it is text, so that people can read it.
fn packed(packer: Packer, bytes: &[u8]) -> Value {
    match (packer, std::str::from_utf8(bytes)) {
        (Packer::Json, Ok(text)) => Value::Text(text.to_owned()),
        _ => Value::Blob(bytes.to_vec()),
    }
}

/// All buffers in one blob: how many, the length of each (as eight bytes, little end first), then the bytes of each.
fn of_buffers(body: &Body) -> Value {
    let mut blob = Vec::with_capacity(8 * (body.buffer_count() + 1) + body.buffer_bytes());
    let mut number = |number: usize| blob.extend_from_slice(&(number as u64).to_le_bytes());
    number(body.buffer_count());
    body.buffers().for_each(|buffer| number(buffer.len()));
    all_buffers(body).for_each(|buffer| blob.extend_from_slice(&buffer));
    Value::Blob(blob)
}

/// The buffers of a blob; `None` if it is cut short.
fn to_buffers(blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = blob;
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_first_chunk::<8>()?;
        *rest = after;
        usize::try_from(u64::from_le_bytes(*number)).ok()
    };
    let count = number(&mut rest)?;
    if count > blob.len() / 8 {
        return None;
    }
    let lengths: Vec<_> = (0..count).map(|_| number(&mut rest)).collect::<Option<_>>()?;
    lengths
        .into_iter()
        .map(|length| {
            let (buffer, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(buffer)
        })
        .collect()
}
