//! `purge_request`: drops records (`controller/hub.py: Hub.purge_results`). Errors come as a `purge_reply`.
//!
//! Only records go; what the hub remembers of who did how much stays. Purging by engine works here; in stock a fault of
//! its query language makes it drop nothing.

use remuda_proto::RemoteError;
use serde_json::Value;

use super::{Answer, Query, engine_id, index_error, msg_ids, type_error};
use crate::find;
use crate::hub::{Effect, Hub};
use crate::repr;
use crate::store::Write;

pub(super) fn answer(hub: &Hub, query: &Query, out: &mut Vec<Effect>) -> Result<Answer, RemoteError> {
    let mut purge = |which| out.push(Effect::Store(Write::Purge(which)));
    let asked = query.content.get("msg_ids").unwrap_or(&Value::Null);
    let engines = match query.content.get("engine_ids") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(ids)) => &ids[..],
        Some(other) => return Err(type_error(format!("`engine_ids` is not a list: {}", repr::value(other)))),
    };
    if asked.as_str() == Some("all") {
        // Every engine's finished tasks are among these.
        purge(find::Query::finished());
        return Ok(Answer::ok());
    }
    let ids = msg_ids("msg_ids", asked)?;
    if let Some(pending) = ids.iter().find(|id| hub.tracking.is_live(id)) {
        return Ok(Answer::error(&index_error(format!("msg pending: {}", repr::text(pending.as_str())))));
    }
    if !ids.is_empty() {
        purge(find::Query::tasks(&ids));
    }
    for id in engines {
        let Some(engine) = engine_id(id).and_then(|id| hub.registry.engine(id)) else {
            return Ok(Answer::error(&index_error(format!("No such engine: {}", repr::value(id)))));
        };
        purge(find::Query::finished_on(&engine.uuid));
    }
    Ok(Answer::ok())
}
