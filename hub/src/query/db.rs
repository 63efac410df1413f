//! `db_request`: the records that a query finds (`controller/hub.py: Hub.db_query`). Errors come as a `db_reply`.

use bytes::Bytes;
use remuda_proto::{Body, RemoteError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Awaited, Dealt, Query, key_error, type_error};
use crate::find::{self, Field, QueryError};
use crate::record::{TaskRecord, all_buffers};
use crate::repr;
use crate::store::{Ask, Buffers, Find, OrderBy};

/// What of the records is asked for.
pub(super) fn ask(query: &Query) -> Dealt {
    let (find, keys) = match read(query) {
        Ok(read) => read,
        Err(error) => return Answer::error(&error).into(),
    };
    let shown = find.buffers;
    Dealt::Asks(Ask::Find(find), Awaited::Records { keys, shown })
}

/// Buffers are no part of a record. Those that are asked for by `keys` follow the content, record by record: first those
/// of the request, then those of the reply; the content says how many.
pub(super) fn answer(records: &[TaskRecord], keys: Option<&[Field]>, shown: Buffers) -> Answer {
    let mut buffers: Vec<Bytes> = Vec::new();
    let mut request_counts = Vec::new();
    let mut result_counts = Vec::new();
    let mut shown_records = Vec::with_capacity(records.len());
    for record in records {
        if shown.requests {
            request_counts.push(take(Some(&record.request), &mut buffers));
        }
        if shown.results {
            result_counts.push(take(result(record), &mut buffers));
        }
        shown_records.push(Value::Object(record.to_shown(keys)));
    }
    let content = json!({
        "status": "ok",
        "records": shown_records,
        "buffer_lens": shown.requests.then_some(request_counts),
        "result_buffer_lens": shown.results.then_some(result_counts),
    });
    Answer { content, buffers }
}

/// What a client may say of a `db_request` under `remuda`.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// No more records than so many.
    limit: Option<usize>,
    /// `arrival`, `submitted` or `completed`.
    order: Option<String>,
    /// Whether in the opposite order.
    descending: bool,
}

fn read(query: &Query) -> Result<(Find, Option<Vec<Field>>), RemoteError> {
    let condition = match query.content.get("query") {
        None => find::Query::everything(),
        Some(condition) => find::Query::read(condition).map_err(|error| to_remote(&error))?,
    };
    let keys =
        Field::read_keys(query.content.get("keys").unwrap_or(&Value::Null)).map_err(|error| to_remote(&error))?;
    let named = |field: Field| keys.as_ref().is_some_and(|keys| keys.contains(&field));
    let shown = Buffers { requests: named(Field::Buffers), results: named(Field::ResultBuffers) };
    let wanted = match query.content.get("remuda") {
        None | Some(Value::Null) => Wanted::default(),
        Some(wanted) => Wanted::deserialize(wanted)
            .map_err(|error| type_error(format!("`remuda` of a db_request is not understood: {error}")))?,
    };
    let order = match wanted.order.as_deref() {
        None | Some("arrival") => OrderBy::Arrival,
        Some("submitted") => OrderBy::Submitted,
        Some("completed") => OrderBy::Completed,
        Some(other) => {
            let text = format!("no order is called {}: use arrival, submitted or completed", repr::text(other));
            return Err(RemoteError::new("ValueError", text));
        }
    };
    let Wanted { limit: most, descending, .. } = wanted;
    Ok((Find { query: condition, buffers: shown, order, descending, most }, keys))
}

fn result(record: &TaskRecord) -> Option<&Body> {
    record.outcome.as_ref().map(|outcome| &outcome.body)
}

/// Appends the buffers of a message; how many there are.
fn take(body: Option<&Body>, buffers: &mut Vec<Bytes>) -> usize {
    let before = buffers.len();
    buffers.extend(body.into_iter().flat_map(all_buffers));
    buffers.len() - before
}

fn to_remote(error: &QueryError) -> RemoteError {
    let text = error.to_string();
    match error {
        QueryError::UnknownField(_) | QueryError::UnknownKeys(_) | QueryError::UnknownOperator(_) => key_error(&text),
        QueryError::Type(_) => type_error(text),
        QueryError::DivisionByZero => RemoteError::new("ZeroDivisionError", text),
    }
}
