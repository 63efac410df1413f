//! `db_request`: the records that a query finds (`controller/hub.py: Hub.db_query`). Errors come as a `db_reply`.

use bytes::Bytes;
use remuda_proto::message::content::{DbOptions, RecordOrder};
use remuda_proto::{Body, RemoteError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[cfg(feature = "sqlite")]
use super::store_error;
use super::{Answer, Awaited, Dealt, Query, key_error, type_error};
use crate::find::{self, Field, QueryError};
use crate::record::{TaskRecord, all_buffers};
#[cfg(feature = "sqlite")]
use crate::store::{self, TaskStore};
use crate::store::{Ask, Buffers, Find, OrderBy};

/// What of the records is asked for.
pub(super) fn ask(query: &Query) -> Dealt {
    let Wanted { find, keys, sizes } = match read(&query.content) {
        Ok(wanted) => wanted,
        Err(error) => return Answer::error(&error).into(),
    };
    let shown = Shown { keys, buffers: find.buffers, sizes };
    Dealt::Asks(Ask::Find(find), Awaited::Records(Box::new(shown)))
}

/// Answers the content of a `db_request` from a store that has no hub: the content of the reply, and its buffers.
///
/// # Errors
/// What a hub would answer.
#[cfg(feature = "sqlite")]
pub(crate) fn answer_from(
    store: &mut dyn TaskStore,
    content: &Map<String, Value>,
) -> Result<(Value, Vec<Bytes>), RemoteError> {
    let Wanted { find, keys, sizes } = read(content)?;
    let shown = Shown { keys, buffers: find.buffers, sizes };
    match store.ask(&Ask::Find(find)) {
        Ok(store::Answer::Records(records)) => {
            let Answer { content, buffers } = answer(&records, &shown);
            Ok((content, buffers))
        }
        Ok(other) => panic!("asked for records, the store answers {other:?}"),
        Err(error) => Err(store_error(&error)),
    }
}

/// What of the records is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The fields; `None`: all.
    keys: Option<Vec<Field>>,
    /// The buffers.
    buffers: Buffers,
    /// Whether sizes are told too.
    sizes: bool,
}

/// Buffers are no part of a record. Those that are asked for by `keys` follow the content, record by record: first those
/// of the request, then those of the reply; the content says how many.
pub(super) fn answer(records: &[TaskRecord], shown: &Shown) -> Answer {
    let Shown { keys, buffers: shown, sizes } = shown;
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
        let mut fields = record.to_shown(keys.as_deref());
        if *sizes {
            fields.insert("remuda".to_owned(), json!(record.message_size()));
        }
        shown_records.push(Value::Object(fields));
    }
    let content = json!({
        "status": "ok",
        "records": shown_records,
        "buffer_lens": shown.requests.then_some(request_counts),
        "result_buffer_lens": shown.results.then_some(result_counts),
    });
    Answer { content, buffers }
}

/// What a `db_request` asks for.
struct Wanted {
    find: Find,
    /// The fields to show; `None`: all.
    keys: Option<Vec<Field>>,
    /// Whether sizes are told too.
    sizes: bool,
}

fn read(content: &Map<String, Value>) -> Result<Wanted, RemoteError> {
    let condition = match content.get("query") {
        None => find::Query::everything(),
        Some(condition) => find::Query::read(condition).map_err(|error| to_remote(&error))?,
    };
    let keys = Field::read_keys(content.get("keys").unwrap_or(&Value::Null)).map_err(|error| to_remote(&error))?;
    let named = |field: Field| keys.as_ref().is_some_and(|keys| keys.contains(&field));
    let buffers = Buffers { requests: named(Field::Buffers), results: named(Field::ResultBuffers) };
    let options = match content.get("remuda") {
        None | Some(Value::Null) => DbOptions::default(),
        Some(options) => DbOptions::deserialize(options)
            .map_err(|error| type_error(format!("`remuda` of a db_request is not understood: {error}")))?,
    };
    let order = match options.order {
        RecordOrder::Arrival => OrderBy::Arrival,
        RecordOrder::Submitted => OrderBy::Submitted,
        RecordOrder::Completed => OrderBy::Completed,
    };
    let most = options.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let find = Find { query: condition, buffers, order, descending: options.descending, most };
    Ok(Wanted { find, keys, sizes: options.sizes })
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
