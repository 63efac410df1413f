//! `resubmit_request`: runs requests once more, under new ids (`controller/hub.py: Hub.resubmit_task`). Errors come as a
//! `resubmit_reply`.

use remuda_proto::message::{Envelope, Header};
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Dependency, MsgId, Now, PackError, RemoteError, Session, Set};
use serde_json::{Map, Value, json};

use super::{Answer, Awaited, Dealt, Query, key_error, msg_ids};
use crate::find;
use crate::hub::{Effect, Hub};
use crate::record::{TaskRecord, all_buffers};
use crate::repr;
use crate::store::{Ask, Buffers, Find, Write};
use crate::tracking::{Tracking, Untracked};

/// Asks for what is to be repeated.
pub(super) fn ask(query: &Query) -> Result<Dealt, RemoteError> {
    let ids: Set<_> = msg_ids("msg_ids", query.required("msg_ids")?)?.into_iter().collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let find = Find::all(find::Query::tasks(&ids), Buffers { requests: true, results: false });
    Ok(Dealt::Asks(Ask::Find(find), Awaited::Resubmitted(ids)))
}

/// Each request goes to the task scheduler, whichever queue had it, and its reply to the hub alone: clients fetch it with
/// a `result_request`. A request that has no reply yet may be repeated too.
pub(super) fn answer(
    hub: &mut Hub,
    now: Now,
    ids: &[MsgId],
    records: Vec<TaskRecord>,
    out: &mut Vec<Effect>,
) -> Answer {
    if records.len() < ids.len() {
        let found: Set<_> = records.iter().map(|record| &record.msg_id).collect();
        let missing: Vec<_> = ids.iter().filter(|id| !found.contains(id)).map(|id| json!(id)).collect();
        return Answer::error(&key_error(&format!("No such msg(s): {}", repr::list(&missing))));
    }
    let mut resubmitted = Map::new();
    for record in records {
        match resubmit(hub, now, &record, out) {
            Ok(again) => drop(resubmitted.insert(record.msg_id.as_str().to_owned(), again)),
            Err(error) => return Answer::error(&error),
        }
    }
    Answer::new(json!({"status": "ok", "resubmitted": resubmitted}))
}

/// Sends one request once more; the new id.
fn resubmit(hub: &mut Hub, now: Now, record: &TaskRecord, out: &mut Vec<Effect>) -> Result<Value, RemoteError> {
    let (envelope, body) = repeat(&mut hub.session, &hub.tracking, now, record).map_err(|error| {
        let text = format!("request {} cannot be repeated: {error}", repr::text(record.msg_id.as_str()));
        RemoteError::new("ValueError", text)
    })?;
    let again = envelope.msg_id;
    hub.tracking.task_request(&again).map_err(|untracked| {
        let text = match untracked {
            Untracked::Full => "too many requests without a reply: try again later",
            Untracked::Known => "somebody has used the id that this request was to have: try again",
        };
        RemoteError::new("RuntimeError", text)
    })?;
    let repeated = TaskRecord::new(again.clone(), hub.session.packer(), Queue::Task, body.clone(), now.date);
    out.push(Effect::Store(Write::Add(Box::new(repeated))));
    out.push(Effect::Store(Write::Resubmit { msg_id: record.msg_id.clone(), again: again.clone() }));
    out.push(Effect::Resubmit { msg_id: again.clone(), body });
    Ok(json!(again))
}

/// The same request under a new id and date, with that which it repeats as its parent.
///
/// Where stock drops all metadata, this keeps what still has a meaning: label, retries, timeout, targets, and
/// dependencies on tasks that are known still. To depend on one that is forgotten would be an error, and its time has
/// passed.
fn repeat(
    session: &mut Session,
    tracking: &Tracking,
    now: Now,
    record: &TaskRecord,
) -> Result<(Envelope, Body), PackError> {
    let (from, to) = (record.packer, session.packer());
    let request = &record.request;
    let mut header: Header = from.unpack(request.header())?;
    let parent = to.pack(&header)?;
    let mut metadata: Map<String, Value> = from.unpack_map(request.metadata())?.unwrap_or_default();
    for key in ["after", "follow"] {
        let dependency = metadata.get(key).and_then(|value| serde_json::from_value::<Dependency>(value.clone()).ok());
        let known = |id: &MsgId| tracking.is_live(id) || tracking.is_finished(id);
        if dependency.is_some_and(|dependency| !dependency.ids.iter().all(known)) {
            metadata.shift_remove(key);
        }
    }
    if record.queue != Queue::Task {
        // Targets of these are no list of uuids, and whatever their clients make of a broadcast is over.
        for key in ["targets", "is_broadcast", "is_coalescing", "original_msg_id"] {
            metadata.shift_remove(key);
        }
    }
    let fresh = session.header(now.date, header.msg_type.clone());
    header.msg_id = fresh.msg_id;
    header.date = fresh.date;
    let content =
        if from == to { request.content().to_vec() } else { to.pack(&from.unpack::<Value>(request.content())?)? };
    let parts = [&to.pack(&header)?[..], &parent, &to.pack(&metadata)?, &content];
    let body = session.sign_parts(parts, all_buffers(request));
    Ok((Envelope { msg_id: header.msg_id, msg_type: header.msg_type, session: header.session }, body))
}
