//! What metadata says of a task and of its reply.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::needs::Extras;
use super::{Status, parent_msg_id};
use crate::dependency::Dependency;
use crate::frames::Body;
use crate::id::{EngineUuid, MsgId};
use crate::pack::{PackError, Packer};
use crate::scan;

/// What a client asks of the task scheduler (`client/view.py: LoadBalancedView._really_apply`). All keys are optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskMetadata {
    /// Not before these tasks finished.
    #[serde(default)]
    pub after: Dependency,
    /// Only where these tasks ran.
    #[serde(default)]
    pub follow: Dependency,
    /// Seconds that it may wait in the queue; 0 or null: for ever. See [`Self::timeout`].
    #[serde(default, rename = "timeout")]
    timeout_s: Option<f64>,
    /// The engines that may run it; empty or null: any.
    #[serde(default, deserialize_with = "null_as_default")]
    pub targets: Vec<EngineUuid>,
    /// How often it is tried again, elsewhere, when it fails; below 0 counts as 0.
    #[serde(default, rename = "retries", deserialize_with = "null_as_default")]
    retries_signed: i64,
    /// A word of the client's own, kept in the task record.
    #[serde(default)]
    pub label: Option<Value>,
    /// What stock does not know.
    #[serde(
        default,
        rename = "remuda",
        skip_serializing_if = "Extras::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub extras: Extras,
}

/// Metadata whose value for one key makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("metadata `{key}` is not understood: {reason}")]
pub struct MetadataError {
    /// The first key that is wrong.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl TaskMetadata {
    /// Reads the metadata of a request.
    ///
    /// # Errors
    /// Names the first key whose value makes no sense. (Stock never answers such a request; wire reference, 6.4.)
    pub fn read(packer: Packer, body: &Body) -> Result<Self, MetadataError> {
        if packer.is_empty_map(body.metadata()) {
            return Ok(Self::default());
        }
        if packer == Packer::Json
            && let Some(metadata) = Self::scan(body.metadata())
        {
            return Ok(metadata);
        }
        packer.unpack(body.metadata()).map_err(|whole| {
            let Ok(Value::Object(map)) = packer.unpack::<Value>(body.metadata()) else {
                return MetadataError { key: "metadata", reason: whole.to_string() };
            };
            ["after", "follow", "timeout", "targets", "retries", "label", "remuda"]
                .into_iter()
                .find_map(|key| {
                    let one = serde_json::Map::from_iter([(key.to_owned(), map.get(key)?.clone())]);
                    let error = serde_json::from_value::<Self>(Value::Object(one)).err()?;
                    let extras = map.get(key).and_then(Value::as_object).filter(|_| key == "remuda");
                    let reason = extras.and_then(Extras::explain).unwrap_or_else(|| error.to_string());
                    Some(MetadataError { key, reason })
                })
                .unwrap_or_else(|| MetadataError { key: "metadata", reason: whole.to_string() })
        })
    }

    /// Reads the metadata of a task that asks for nothing special, which is what most are; `None` leaves it to the full
    /// parser.
    fn scan(metadata: &[u8]) -> Option<Self> {
        let [after, follow, timeout, targets, retries, label, extras] =
            scan::pick(metadata, ["after", "follow", "timeout", "targets", "retries", "label", "remuda"])?;
        let nothing = |value: Option<&[u8]>| matches!(value, None | Some(b"null" | b"[]"));
        let zero = |value: Option<&[u8]>| matches!(value, None | Some(b"null" | b"0" | b"0.0"));
        let plain = nothing(after) && nothing(follow) && nothing(targets) && zero(timeout) && zero(retries);
        let plain = plain && matches!(extras, None | Some(b"null" | b"{}"));
        let label = match label {
            None | Some(b"null") => None,
            Some(label) => Some(Value::String(scan::text(label)?.to_owned())),
        };
        plain.then(|| Self { label, ..Self::default() })
    }

    /// How long the task may wait in the queue; `None`: for ever. A negative time is over at once.
    pub fn timeout(&self) -> Option<Duration> {
        let seconds = self.timeout_s.filter(|seconds| *seconds != 0.0 && !seconds.is_nan())?;
        Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    /// Sets [`Self::timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout_s = timeout.map(|timeout| timeout.as_secs_f64());
    }

    /// How often it is tried again; a service, how often it is started again.
    pub fn retries(&self) -> u32 {
        if let Some(restart) = &self.extras.restart {
            return restart.most();
        }
        u32::try_from(self.retries_signed.max(0)).unwrap_or(u32::MAX)
    }

    /// Sets [`Self::retries`].
    pub fn set_retries(&mut self, retries: u32) {
        self.retries_signed = i64::from(retries);
    }
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What is read of an engine's reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyEnvelope {
    /// The request it answers; `None` for an empty parent.
    pub parent: Option<MsgId>,
    /// How the task ended. From metadata, or from the content where metadata has none (stock drops such a reply).
    pub status: Option<Status>,
    /// Whether the engine could run it at all; false sends it to another engine.
    pub dependencies_met: bool,
}

#[derive(Deserialize)]
struct RawReply {
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    dependencies_met: Option<bool>,
}

#[derive(Deserialize)]
struct RawStatus {
    #[serde(default)]
    status: Option<Status>,
}

impl ReplyEnvelope {
    /// Reads parent, metadata and, where need be, the content's status.
    ///
    /// # Errors
    /// When a part of it cannot be unpacked.
    pub fn read(packer: Packer, body: &Body) -> Result<Self, PackError> {
        let parent = parent_msg_id(packer, body)?;
        if packer == Packer::Json
            && let Some((status, dependencies_met)) = Self::scan(body.metadata())
        {
            return Ok(Self { parent, status: Some(status), dependencies_met });
        }
        let raw: RawReply = packer.unpack(body.metadata())?;
        let status = match raw.status {
            Some(status) => Some(status),
            None => packer.unpack::<RawStatus>(body.content())?.status,
        };
        Ok(Self { parent, status, dependencies_met: raw.dependencies_met.unwrap_or(true) })
    }
}

impl ReplyEnvelope {
    /// Reads status and `dependencies_met` of what engines commonly write; `None` leaves it to the full parser.
    fn scan(metadata: &[u8]) -> Option<(Status, bool)> {
        let [met, status] = scan::pick(metadata, ["dependencies_met", "status"])?;
        let status = match status? {
            br#""ok""# => Status::Ok,
            br#""error""# => Status::Error,
            br#""aborted""# => Status::Aborted,
            _ => return None,
        };
        let met = match met {
            None | Some(b"true") => true,
            Some(b"false") => false,
            Some(_) => return None,
        };
        Some((status, met))
    }
}

#[derive(Deserialize)]
struct RawEngine<'a> {
    #[serde(borrow, default)]
    engine: Option<Cow<'a, str>>,
}

/// The engine that says it ran a task, in the metadata of its reply; for a client, which sees only the controller.
///
/// # Errors
/// When the metadata is not a map, or its engine no text.
pub fn replying_engine(packer: Packer, body: &Body) -> Result<Option<EngineUuid>, PackError> {
    let raw: RawEngine<'_> = packer.unpack(body.metadata())?;
    Ok(raw.engine.map(|engine| EngineUuid::from(&*engine)))
}

/// The metadata of a reply that an engine makes (`engine/kernel.py: init_metadata, finish_metadata`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyMetadata {
    /// When handling began.
    pub started: String,
    /// False: send it to another engine.
    pub dependencies_met: bool,
    /// The engine.
    pub engine: EngineUuid,
    /// Copied from the request.
    #[serde(default)]
    pub is_broadcast: bool,
    /// Copied from the request.
    #[serde(default)]
    pub is_coalescing: bool,
    /// Copied from the request.
    #[serde(default)]
    pub original_msg_id: String,
    /// Copied from the request.
    #[serde(default)]
    pub label: Option<Value>,
    /// As in the content.
    pub status: Status,
    /// Only on error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_info: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::BodyBuilder;
    use serde_json::json;

    fn body(parent: &Value, metadata: &Value, content: &Value) -> Body {
        let mut builder = BodyBuilder::default();
        builder.push(b"");
        for part in [&json!({}), parent, metadata, content] {
            builder.push(part.to_string().as_bytes());
        }
        builder.finish().unwrap()
    }

    fn read(metadata: &Value) -> Result<TaskMetadata, MetadataError> {
        TaskMetadata::read(Packer::Json, &body(&json!({}), metadata, &json!({})))
    }

    #[test]
    fn what_a_stock_view_sends_is_understood() {
        let metadata =
            read(&json!({"after": [], "follow": ["x"], "timeout": 1.5, "targets": ["e"], "retries": 2, "label": null}));
        let metadata = metadata.unwrap();
        assert!(metadata.after.is_empty());
        assert_eq!(metadata.follow.ids.len(), 1);
        assert_eq!(metadata.timeout(), Some(Duration::from_millis(1500)));
        assert_eq!((metadata.targets.len(), metadata.retries()), (1, 2));
    }

    #[test]
    fn no_metadata_asks_for_nothing() {
        assert_eq!(read(&json!({})).unwrap(), TaskMetadata::default());
        let nulls = read(&json!({"after": null, "follow": null, "timeout": null, "targets": null, "retries": null}));
        assert_eq!(nulls.unwrap(), TaskMetadata::default());
        assert_eq!(read(&json!({"timeout": 0.0, "retries": -3})).unwrap().timeout(), None);
        assert_eq!(read(&json!({"timeout": -1})).unwrap().timeout(), Some(Duration::ZERO));
    }

    #[test]
    fn the_key_that_is_wrong_is_named() {
        for (key, value) in
            [("after", json!(5)), ("follow", json!([1])), ("targets", json!("e")), ("retries", json!("x"))]
        {
            assert_eq!(read(&json!({"label": "l", key: value})).unwrap_err().key, key);
        }
        assert_eq!(read(&json!([1])).unwrap_err().key, "metadata");
    }

    #[test]
    fn a_reply_without_status_in_metadata_is_read_from_its_content() {
        let reply = ReplyEnvelope::read(
            Packer::Json,
            &body(&json!({"msg_id": "m"}), &json!({"engine": "e"}), &json!({"status": "aborted"})),
        )
        .unwrap();
        assert_eq!(reply.parent, Some(MsgId::from("m")));
        assert_eq!(reply.status, Some(Status::Aborted));
        assert!(reply.dependencies_met);
    }
}
