//! `result_request`: the results of requests, or whether they are done (`controller/hub.py: Hub.get_results`). With the key `remuda`,
//! requests that nobody knows are listed as `unknown`; for stock, one of them makes the whole answer an error.

use bytes::Bytes;
use remuda_proto::{Map, MsgId, RemoteError};
use serde_json::json;

use super::{Answer, Awaited, Dealt, Query, key_error, msg_ids};
use crate::find;
use crate::hub::Hub;
use crate::record::{TaskRecord, all_buffers};
use crate::store::{Ask, Buffers, Find};
use crate::tracking::Seen;

/// What is known of a request.
enum Known<'a> {
    /// It has no reply yet.
    Pending,
    /// It ended; its record may be gone.
    Completed(Option<&'a TaskRecord>),
}

/// Asks for the records of these requests: for their status alone, only for those that the hub does not know without.
pub(super) fn ask(hub: &Hub, query: &Query) -> Result<Dealt, RemoteError> {
    let mut ids = msg_ids("msg_ids", query.required("msg_ids")?)?;
    ids.sort_unstable();
    ids.dedup();
    let status_only = query.flag("status_only");
    let lists_unknown = query.content.contains_key("remuda");
    // What the store will know of them is what it knows now.
    let ids: Vec<_> = ids.into_iter().map(|id| (id.clone(), hub.tracking.see(&id))).collect();
    let needed = ids.iter().filter(|(_, seen)| !status_only || *seen == Seen::Unknown);
    let needed: Vec<_> = needed.map(|(id, _)| id.clone()).collect();
    if needed.is_empty() && status_only {
        return Ok(answer(&ids, status_only, lists_unknown, &Map::default())?.into());
    }
    let buffers = Buffers { requests: false, results: !status_only };
    let find = Find::all(find::Query::tasks(&needed), buffers);
    Ok(Dealt::Asks(Ask::Find(find), Awaited::Results { ids, status_only, lists_unknown }))
}

/// Results come in ascending order of their ids, and so do the buffers, all in one row: the client takes as many as
/// each result needs.
pub(super) fn answer(
    ids: &[(MsgId, Seen)],
    status_only: bool,
    lists_unknown: bool,
    records: &Map<MsgId, TaskRecord>,
) -> Result<Answer, RemoteError> {
    let mut pending = Vec::new();
    let mut completed = Vec::new();
    let mut unknown = Vec::new();
    let mut results = Vec::new();
    let mut buffers: Vec<Bytes> = Vec::new();
    for (id, seen) in ids {
        let Some(known) = known(seen, records.get(id)) else {
            if lists_unknown {
                unknown.push(id);
                continue;
            }
            return Ok(Answer::error(&key_error(&format!("No such message: {id}"))));
        };
        match known {
            Known::Pending => pending.push(id),
            Known::Completed(record) => {
                if !status_only {
                    // It ended, but its record was dropped: stock stumbles in just this way.
                    let record = record.ok_or_else(|| key_error(id.as_str()))?;
                    results.push((id, record.to_result()));
                    if let Some(outcome) = &record.outcome {
                        buffers.extend(all_buffers(&outcome.body));
                    }
                }
                completed.push(id);
            }
        }
    }
    let mut content = json!({"status": "ok", "pending": pending, "completed": completed});
    if lists_unknown {
        content["unknown"] = json!(unknown);
    }
    for (id, result) in results {
        content[id.as_str()] = result;
    }
    Ok(Answer { content, buffers })
}

/// What is known of a request; `None` if nothing is.
fn known<'a>(seen: &Seen, record: Option<&'a TaskRecord>) -> Option<Known<'a>> {
    match seen {
        Seen::Live(_) => Some(Known::Pending),
        Seen::Finished => Some(Known::Completed(record)),
        Seen::Unknown => {
            record.map(|record| if record.outcome.is_some() { Known::Completed(Some(record)) } else { Known::Pending })
        }
    }
}
