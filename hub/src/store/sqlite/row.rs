//! Records as rows, and back.

use std::borrow::Cow;

use bytes::Bytes;
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, BodyBuilder, Date, EngineUuid, Identity, MsgId, Packer};
use rusqlite::Row;
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, Value, ValueRef};

use crate::record::{Outcome, OutputPiece, Said, TaskOutput, TaskRecord, TaskState, all_buffers};
use crate::store::Buffers;

/// The columns of a new row, in the order of [`of_record`].
pub(super) const INSERTED: [&str; 29] = [
    "msg_id",
    "packer",
    "queue",
    "client_uuid",
    "engine_uuid",
    "label",
    "submitted",
    "header",
    "metadata",
    "content",
    "arrived",
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
    "resubmitted",
    "tried",
    "execute_input",
    "execute_result",
    "error",
    "display_data",
    "stdout",
    "stderr",
];

/// How many of these, from the front, a record has that is assigned once and writes nothing: the others are left out then.
pub(super) const PLAIN: usize = 21;

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

/// The columns that are read, in the order of [`read`]; the two of buffers follow, and who is owed the reply.
const READ: &str = "msg_id, packer, queue, engine_uuid, resubmitted, header, metadata, content, received, result_header, \
                    result_metadata, result_content, execute_input, execute_result, error, display_data, stdout, stderr, state, \
                    arrived, tried, retries";

/// A value on its way into a column.
pub(super) type Column<'a> = ToSqlOutput<'a>;

/// The assignments of a reply.
pub(super) fn finished() -> String {
    FINISHED.map(|column| format!("{column} = ?")).join(", ")
}

/// What to select for [`read`] from this table, beside which that other one has who is owed replies. Of buffers that are not
/// wanted the size alone, for which SQLite does not read them.
pub(super) fn columns(table: &str, owed: &str, buffers: Buffers) -> String {
    let of = |wanted: bool, column: &'static str| if wanted { column.to_owned() } else { format!("length({column})") };
    let [requests, results] = [of(buffers.requests, "buffers"), of(buffers.results, "result_buffers")];
    format!("{READ}, {requests}, {results}, (SELECT reply_to FROM {owed} AS owed WHERE owed.seq = {table}.seq)")
}

/// The values of [`INSERTED`], or of the first [`PLAIN`] of them if there are no others.
pub(super) fn of_record(record: &TaskRecord) -> Vec<Column<'_>> {
    let packer = record.packer;
    let (request, output) = (&record.request, &record.output);
    let Said { submitted, client, label } = record.said();
    let mut values = Vec::with_capacity(INSERTED.len());
    values.extend([
        text(record.msg_id.as_str()),
        text(packer.name()),
        text(record.queue.name()),
        client.map_or(NULL, cow),
        record.engine.as_ref().map_or(NULL, |engine| text(engine.as_str())),
        label.map_or(NULL, cow),
        date(submitted),
        packed(packer, request.header()),
        packed(packer, request.metadata()),
        packed(packer, request.content()),
        date(Some(record.arrived)),
        record.retries.map_or(NULL, |retries| Column::Owned(Value::Integer(retries.into()))),
        of_buffers(request),
    ]);
    match &record.outcome {
        Some(outcome) => values.extend(of_outcome(outcome)),
        None => values.extend(FINISHED.map(|column| match column {
            "state" => text(record.state().name()),
            _ => NULL,
        })),
    }
    if record.resubmitted.is_none() && record.tried.is_empty() && *output == TaskOutput::default() {
        return values;
    }
    values.extend([
        record.resubmitted.as_ref().map_or(NULL, |msg_id| text(msg_id.as_str())),
        of_tried(&record.tried),
        output.execute_input.as_deref().map_or(NULL, text),
        output.execute_result.as_ref().map_or(NULL, |content| packed(packer, content)),
        output.error.as_ref().map_or(NULL, |content| packed(packer, content)),
        output.display_data.as_ref().map_or(NULL, |content| packed(packer, content)),
        text(&output.stdout),
        text(&output.stderr),
    ]);
    values
}

/// The values of [`FINISHED`].
pub(super) fn of_outcome(outcome: &Outcome) -> [Column<'_>; 8] {
    let Outcome { packer, body, received, status } = outcome;
    [
        date(outcome.started()),
        date(Some(outcome.completed())),
        date(Some(*received)),
        text(TaskState::Ended(*status).name()),
        packed(*packer, body.header()),
        packed(*packer, body.metadata()),
        packed(*packer, body.content()),
        of_buffers(body),
    ]
}

/// The column of a piece of output, whether it is appended there, and its value.
pub(super) fn of_piece(packer: Packer, piece: &OutputPiece) -> (&'static str, bool, Column<'_>) {
    match piece {
        OutputPiece::Stdout(said) => ("stdout", true, text(said)),
        OutputPiece::Stderr(said) => ("stderr", true, text(said)),
        OutputPiece::ExecuteInput(code) => ("execute_input", false, text(code)),
        OutputPiece::ExecuteResult(content) => ("execute_result", false, packed(packer, content)),
        OutputPiece::DisplayData(content) => ("display_data", false, packed(packer, content)),
        OutputPiece::Error(content) => ("error", false, packed(packer, content)),
    }
}

/// The engines that tried a task, as a list in JSON.
fn of_tried(tried: &[EngineUuid]) -> Column<'static> {
    match tried {
        [] => NULL,
        tried => {
            let tried: serde_json::Value = tried.iter().map(EngineUuid::as_str).collect();
            Column::Owned(Value::Text(tried.to_string()))
        }
    }
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
        (Some(received), TaskState::Ended(status)) => Some(Outcome {
            packer,
            body: message(row, packer, [9, 10, 11], Some(23))?,
            received: Date(received),
            status,
        }),
        (Some(_), state) => return Err(unknown(18, &format!("it has a reply, and is {}", state.name()))),
    };
    let tried: Option<String> = row.get(20)?;
    let tried: Vec<EngineUuid> = match tried {
        None => Vec::new(),
        Some(tried) => serde_json::from_str(&tried).map_err(|error| unknown(20, &error.to_string()))?,
    };
    let content = |at: usize| Ok::<_, rusqlite::Error>(part(row, at)?.map(Bytes::copy_from_slice));
    Ok(TaskRecord {
        msg_id: MsgId::from(row.get::<_, String>(0)?),
        packer,
        queue,
        engine: row.get::<_, Option<String>>(3)?.map(EngineUuid::from),
        reply_to: part(row, 24)?.map(Identity::from),
        arrived: Date(row.get(19)?),
        tried,
        retries: row.get(21)?,
        lost: state == TaskState::Lost,
        request: message(row, packer, [5, 6, 7], Some(22))?,
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
        unread_bytes: (unread(row, 22)?, unread(row, 23)?),
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

/// Nothing.
const NULL: Column<'static> = Column::Borrowed(ValueRef::Null);

fn date(date: Option<Date>) -> Column<'static> {
    date.map_or(NULL, |date| Column::Owned(Value::Integer(date.0)))
}

fn text(text: &str) -> Column<'_> {
    Column::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn cow(said: Cow<'_, str>) -> Column<'_> {
    match said {
        Cow::Borrowed(said) => text(said),
        Cow::Owned(said) => Column::Owned(Value::Text(said)),
    }
}

/// A packed part: as text where it is text, so that people can read it.
fn packed(packer: Packer, bytes: &[u8]) -> Column<'_> {
    Column::Borrowed(match packer {
        Packer::Json if std::str::from_utf8(bytes).is_ok() => ValueRef::Text(bytes),
        _ => ValueRef::Blob(bytes),
    })
}

/// All buffers in one blob: how many, the length of each (as eight bytes, little end first), then the bytes of each.
fn of_buffers(body: &Body) -> Column<'static> {
    let mut blob = Vec::with_capacity(8 * (body.buffer_count() + 1) + body.buffer_bytes());
    let mut number = |number: usize| blob.extend_from_slice(&(number as u64).to_le_bytes());
    number(body.buffer_count());
    body.buffers().for_each(|buffer| number(buffer.len()));
    all_buffers(body).for_each(|buffer| blob.extend_from_slice(&buffer));
    Column::Owned(Value::Blob(blob))
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
