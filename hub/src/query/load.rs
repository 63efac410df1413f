//! `load_request`: how much each engine has to do. Stock clients never send it.

use remuda_proto::RemoteError;
use serde_json::json;

use super::{Answer, Query, target};
use crate::hub::Hub;
use crate::tracking::Counts;

/// Engines are named by their decimal ids, as in every other reply. Stock takes the id for the length of a text of zero
/// bytes and shows that; nobody can have wanted it.
pub(super) fn answer(hub: &Hub, query: &Query) -> Result<Answer, RemoteError> {
    let mut content = json!({"status": "ok"});
    for engine in target::engines(hub, query)? {
        let Counts { queue, tasks, .. } = hub.tracking.counts(engine.key).unwrap_or_default();
        content[engine.id.to_string()] = json!(queue + tasks);
    }
    Ok(Answer::new(content))
}
