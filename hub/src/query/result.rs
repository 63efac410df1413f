//! `result_request`: the results of requests, or whether they are done (`controller/hub.py: Hub.get_results`).

use bytes::Bytes;
use remuda_proto::{Map, MsgId, RemoteError};
use serde_json::json;

use super::{Answer, Query, key_error, msg_ids, store_error};
use crate::find;
use crate::hub::Hub;
use crate::record::{TaskRecord, all_buffers};
use crate::store::{Buffers, StoreError};

/// What the hub knows of a request.
enum Known<'a> {
    /// It has no reply yet.
    Pending,
    /// It ended; its record may be gone.
    Completed(Option<&'a TaskRecord>),
}

/// Results come in ascending order of their ids, and so do the buffers, all in one row: the client takes as many as
/// each result needs.
pub(super) fn answer(hub: &mut Hub, query: &Query) -> Result<Answer, RemoteError> {
    let mut ids = msg_ids("msg_ids", query.required("msg_ids")?)?;
    ids.sort_unstable();
    ids.dedup();
    let status_only = query.flag("status_only");
    let records = match look_up(hub, &ids, status_only) {
        Ok(records) => records,
        Err(error) => return Ok(Answer::error(&store_error(&error))),
    };
    let mut pending = Vec::new();
    let mut completed = Vec::new();
    let mut results = Vec::new();
    let mut buffers: Vec<Bytes> = Vec::new();
    for id in ids {
        let Some(known) = known(hub, &id, records.get(&id)) else {
            return Ok(Answer::error(&key_error(&format!("No such message: {id}"))));
        };
        match known {
            Known::Pending => pending.push(id),
            Known::Completed(record) => {
                if !status_only {
                    // It ended, but its record was dropped: stock stumbles in just this way.
                    let record = record.ok_or_else(|| key_error(id.as_str()))?;
                    results.push((id.clone(), record.to_result()));
                    if let Some(outcome) = &record.outcome {
                        buffers.extend(all_buffers(&outcome.body));
                    }
                }
                completed.push(id);
            }
        }
    }
    let mut content = json!({"status": "ok", "pending": pending, "completed": completed});
    for (id, result) in results {
        content[id.as_str()] = result;
    }
    Ok(Answer { content, buffers })
}

/// The records of these requests. For their status alone, only those that the hub does not know without.
///
/// # Errors
/// Without records, only a question for the status can be answered.
fn look_up(hub: &mut Hub, ids: &[MsgId], status_only: bool) -> Result<Map<MsgId, TaskRecord>, StoreError> {
    let needed: Vec<_> = if status_only {
        ids.iter().filter(|id| !hub.tracking.is_live(id) && !hub.tracking.is_finished(id)).cloned().collect()
    } else {
        ids.to_vec()
    };
    if needed.is_empty() && status_only {
        return Ok(Map::default());
    }
    let buffers = Buffers { requests: false, results: !status_only };
    match hub.store.find(&find::Query::tasks(&needed), buffers) {
        Ok(records) => Ok(records.into_iter().map(|record| (record.msg_id.clone(), record)).collect()),
        Err(StoreError::NoData) if status_only => Ok(Map::default()),
        Err(error) => Err(error),
    }
}

/// What is known of a request; `None` if nothing is.
fn known<'a>(hub: &Hub, id: &MsgId, record: Option<&'a TaskRecord>) -> Option<Known<'a>> {
    if hub.tracking.is_live(id) {
        Some(Known::Pending)
    } else if hub.tracking.is_finished(id) {
        Some(Known::Completed(record))
    } else {
        record.map(|record| if record.outcome.is_some() { Known::Completed(Some(record)) } else { Known::Pending })
    }
}
