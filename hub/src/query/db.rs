//! `db_request`: the records that a query finds (`controller/hub.py: Hub.db_query`). Errors come as a `db_reply`.

use bytes::Bytes;
use remuda_proto::{Body, RemoteError};
use serde_json::{Value, json};

use super::{Answer, Query, key_error, store_error, type_error};
use crate::find::{self, Field, QueryError};
use crate::hub::Hub;
use crate::record::{TaskRecord, all_buffers};
use crate::store::Buffers;

/// Buffers are no part of a record. Those that are asked for by `keys` follow the content, record by record: first those
/// of the request, then those of the reply; the content says how many.
pub(super) fn answer(hub: &mut Hub, query: &Query) -> Answer {
    let (condition, keys) = match read(query) {
        Ok(read) => read,
        Err(error) => return Answer::error(&to_remote(&error)),
    };
    let named = |field: Field| keys.as_ref().is_some_and(|keys| keys.contains(&field));
    let shown = Buffers { requests: named(Field::Buffers), results: named(Field::ResultBuffers) };
    let records = match hub.store.find(&condition, shown) {
        Ok(records) => records,
        Err(error) => return Answer::error(&store_error(&error)),
    };
    let mut buffers: Vec<Bytes> = Vec::new();
    let mut request_counts = Vec::new();
    let mut result_counts = Vec::new();
    let mut shown_records = Vec::with_capacity(records.len());
    for record in &records {
        if shown.requests {
            request_counts.push(take(Some(&record.request), &mut buffers));
        }
        if shown.results {
            result_counts.push(take(result(record), &mut buffers));
        }
        shown_records.push(Value::Object(record.to_shown(keys.as_deref())));
    }
    let content = json!({
        "status": "ok",
        "records": shown_records,
        "buffer_lens": shown.requests.then_some(request_counts),
        "result_buffer_lens": shown.results.then_some(result_counts),
    });
    Answer { content, buffers }
}

fn read(query: &Query) -> Result<(find::Query, Option<Vec<Field>>), QueryError> {
    let condition = match query.content.get("query") {
        None => find::Query::everything(),
        Some(condition) => find::Query::read(condition)?,
    };
    let keys = Field::read_keys(query.content.get("keys").unwrap_or(&Value::Null))?;
    Ok((condition, keys))
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
