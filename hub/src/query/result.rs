//! `result_request`: the results of requests, or whether they are done (`controller/hub.py: Hub.get_results`).

use bytes::Bytes;
use remuda_proto::{Body, MsgId, RemoteError};
use serde_json::json;

use super::{Answer, Query, key_error, msg_ids, no_data};
use crate::hub::Hub;
use crate::record::TaskRecord;

/// What the hub knows of a request.
enum Known<'a> {
    /// It has no reply yet.
    Pending,
    /// It ended; its record may be gone.
    Completed(Option<&'a TaskRecord>),
}

/// Results come in ascending order of their ids, and so do the buffers, all in one row: the client takes as many as
/// each result needs.
pub(super) fn answer(hub: &Hub, query: &Query) -> Result<Answer, RemoteError> {
    let mut ids = msg_ids("msg_ids", query.required("msg_ids")?)?;
    ids.sort_unstable();
    ids.dedup();
    let status_only = query.flag("status_only");
    let mut pending = Vec::new();
    let mut completed = Vec::new();
    let mut results = Vec::new();
    let mut buffers: Vec<Bytes> = Vec::new();
    for id in ids {
        let known = match look_up(hub, &id, status_only) {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(Answer::error(&key_error(&format!("No such message: {id}")))),
            Err(error) => return Ok(Answer::error(&error)),
        };
        match known {
            Known::Pending => pending.push(id),
            Known::Completed(record) => {
                if !status_only {
                    // It ended, but its record was dropped: stock stumbles in just this way.
                    let record = record.ok_or_else(|| key_error(id.as_str()))?;
                    results.push((id.clone(), record.to_result(hub.session.packer())));
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

/// What is known of a request; `None` if nothing is.
///
/// Without records, only a question for the status can be answered.
fn look_up<'a>(hub: &'a Hub, id: &MsgId, status_only: bool) -> Result<Option<Known<'a>>, RemoteError> {
    let record = match hub.store.record(id) {
        Ok(record) => record,
        Err(_) if status_only => None,
        Err(_) => return Err(no_data()),
    };
    Ok(if hub.tracking.is_live(id) {
        Some(Known::Pending)
    } else if hub.tracking.is_finished(id) {
        Some(Known::Completed(record))
    } else {
        record.map(|record| if record.outcome.is_some() { Known::Completed(Some(record)) } else { Known::Pending })
    })
}

fn all_buffers(body: &Body) -> impl Iterator<Item = Bytes> {
    (0..body.buffer_count()).filter_map(|index| body.buffer(index))
}
