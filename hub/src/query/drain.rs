//! `drain_request`, which stock does not have: engines that finish what they have and get no more tasks.

use remuda_proto::{EngineId, Now, RemoteError};
use serde_json::{Value, json};

use super::{Answer, Query, target, type_error};
use crate::hub::{Effect, Hub};
use crate::repr;

/// With `drain`, the engines get no more tasks, and with `shutdown` each is shut down when it has nothing left; without,
/// they get tasks again.
pub(super) fn answer(hub: &mut Hub, now: Now, query: &Query, out: &mut Vec<Effect>) -> Result<Answer, RemoteError> {
    let ids: Vec<EngineId> = target::engines(hub, query)?.into_iter().map(|engine| engine.id).collect();
    let switch = |key: &str, default: Option<bool>| match (query.content.get(key), default) {
        (Some(Value::Bool(value)), _) => Ok(*value),
        (None, Some(default)) => Ok(default),
        (None, None) => query.required(key).map(|_| false),
        (Some(other), _) => Err(type_error(format!("`{key}` is neither true nor false: {}", repr::value(other)))),
    };
    let (drain, shutdown) = (switch("drain", None)?, switch("shutdown", Some(false))?);
    if drain {
        ids.iter().for_each(|id| hub.drain(now, *id, shutdown, out));
        return Ok(Answer::new(json!({"status": "ok", "engines": ids})));
    }
    let (again, ending): (Vec<EngineId>, Vec<EngineId>) = ids.into_iter().partition(|id| hub.undrain(now, *id, out));
    if !ending.is_empty() {
        let text = format!("told to end already, since they had nothing left: engines {}", repr::value(&json!(ending)));
        return Err(RemoteError::new("RuntimeError", text));
    }
    Ok(Answer::new(json!({"status": "ok", "engines": again})))
}
