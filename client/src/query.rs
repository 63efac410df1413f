//! What the controller says when it is asked.

use std::collections::BTreeMap;

use remuda_proto::message::content::RemudaStatus;
pub use remuda_proto::message::content::ResultStatus;
use remuda_proto::{EngineId, MsgId, MsgType, Packer, RemoteError, Status};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::QueryError;
use crate::outstanding::{Outcome, Reply};

/// How much each engine has to do (`client/client.py: queue_status`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// By engine. A stock controller also lists engines that are gone.
    pub engines: BTreeMap<EngineId, EngineQueue>,
    /// Tasks that no engine has yet.
    pub unassigned: u64,
}

/// How much one engine has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EngineQueue {
    /// Direct requests that it has not answered.
    pub queue: u64,
    /// Tasks of the task scheduler that it has not answered.
    pub tasks: u64,
    /// What it finished.
    pub completed: u64,
}

/// What the controller does, in more words on Remuda's own than on a stock one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerStatus {
    /// What every controller says.
    pub queues: QueueStatus,
    /// What only Remuda's says; `None` from a stock one.
    pub remuda: Option<RemudaStatus>,
}

/// What a purge takes off the record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// All tasks that are done.
    All,
    /// These tasks, which must be done.
    Tasks(Vec<MsgId>),
    /// What these engines did.
    Engines(Vec<EngineId>),
}

/// Reads the content of a reply, or says why it is none.
///
/// # Errors
/// Why it is none.
pub fn read<T: DeserializeOwned>(packer: Packer, msg_type: &MsgType, outcome: &Outcome) -> Result<T, QueryError> {
    let msg_type = msg_type.clone();
    let reply: &Reply = match outcome {
        Outcome::Reply(reply) => reply,
        Outcome::EngineLost(engine) => return Err(QueryError::EngineLost { engine: engine.uuid.clone() }),
        Outcome::NoAnswer { waited } => return Err(QueryError::NoAnswer { msg_type, waited: *waited }),
        Outcome::Unreadable { reason } => return Err(QueryError::Unreadable { msg_type, reason: reason.clone() }),
        Outcome::Shutdown => return Err(QueryError::Shutdown),
        Outcome::Lost(lost) => return Err(QueryError::Unreadable { msg_type, reason: lost.to_string() }),
    };
    let unreadable = |error: remuda_proto::PackError| QueryError::Unreadable {
        msg_type: msg_type.clone(),
        reason: error.to_string(),
    };
    if reply.status != Status::Ok {
        let source: Box<RemoteError> = packer.unpack(reply.body.content()).map_err(unreadable)?;
        return Err(QueryError::Refused { msg_type, source });
    }
    packer.unpack(reply.body.content()).map_err(unreadable)
}

/// Reads the content of a `queue_reply`: engines stand in it by their ids, beside other keys.
///
/// # Errors
/// When it makes no sense.
pub fn queue_status(content: Value) -> Result<ControllerStatus, QueryError> {
    let unreadable = |reason: String| QueryError::Unreadable { msg_type: MsgType::QueueRequest, reason };
    let Value::Object(content) = content else { return Err(unreadable("it is no map".to_owned())) };
    let mut status = ControllerStatus { queues: QueueStatus::default(), remuda: None };
    for (key, value) in content {
        if let Ok(id) = key.parse() {
            let queue = serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?;
            status.queues.engines.insert(EngineId(id), queue);
        } else if key == "unassigned" {
            status.queues.unassigned = value.as_u64().unwrap_or_default();
        } else if key == "remuda" {
            status.remuda = Some(serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))?);
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn engines_are_told_from_the_other_keys() {
        let content = json!({"status": "ok", "0": {"queue": 1, "completed": 6, "tasks": 2}, "unassigned": 4});
        let status = queue_status(content).unwrap();
        assert_eq!(status.queues.engines[&EngineId(0)], EngineQueue { queue: 1, tasks: 2, completed: 6 });
        assert_eq!((status.queues.unassigned, status.remuda), (4, None));
    }

    #[test]
    fn what_remuda_adds_is_read_and_what_makes_no_sense_is_told() {
        let content = json!({"status": "ok", "unassigned": 0, "remuda": {"waiting": 3, "running": 1, "done": {"ok": 2, "error": 0, "aborted": 0}}});
        assert_eq!(queue_status(content).unwrap().remuda.unwrap().waiting, 3);
        assert!(matches!(queue_status(json!({"0": 5})), Err(QueryError::Unreadable { .. })));
        assert!(matches!(queue_status(json!([])), Err(QueryError::Unreadable { .. })));
    }
}
