//! An engine's exception, as data.

use serde::{Deserialize, Serialize};

use crate::id::{EngineId, EngineUuid};

/// An error as it travels in the content of a reply (`error.py: wrap_exception`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{ename}: {evalue}")]
pub struct RemoteError {
    /// Name of the exception's class, `ZeroDivisionError` say.
    pub ename: String,
    /// The exception's text.
    #[serde(default)]
    pub evalue: String,
    /// The traceback, in lines or groups of lines.
    #[serde(default)]
    pub traceback: Vec<String>,
    /// Which engine raised it; `None` when the controller did. Never absent on the wire: stock clients tell the two
    /// apart by an empty map (`client/client.py: _handle_apply_reply`).
    #[serde(default, with = "engine_info")]
    pub engine_info: Option<EngineInfo>,
}

/// The engine that an error came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Its uuid.
    pub engine_uuid: EngineUuid,
    /// Its id.
    pub engine_id: EngineId,
    /// `apply` or `execute`.
    pub method: String,
}

impl RemoteError {
    /// An error that did not come from an engine.
    pub fn new(ename: &str, evalue: impl Into<String>) -> Self {
        let evalue = evalue.into();
        let last = if evalue.is_empty() { ename.to_owned() } else { format!("{ename}: {evalue}") };
        Self { ename: ename.to_owned(), evalue, traceback: vec![last], engine_info: None }
    }

    /// The same error, said to come from an engine.
    #[must_use]
    pub fn on_engine(mut self, uuid: EngineUuid, id: EngineId, method: &str) -> Self {
        self.engine_info = Some(EngineInfo { engine_uuid: uuid, engine_id: id, method: method.to_owned() });
        self
    }

    /// The content of an error reply.
    pub fn content(&self) -> ErrorContent<'_> {
        ErrorContent { status: "error", error: self }
    }
}

/// `{"status": "error", "ename": ..}`: the content of any error reply.
#[derive(Debug, Serialize)]
pub struct ErrorContent<'a> {
    status: &'static str,
    #[serde(flatten)]
    error: &'a RemoteError,
}

/// `None` travels as `{}`; whatever lacks a field is read as `None`.
mod engine_info {
    use super::EngineInfo;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "serde's `with` hands over a reference to the field")]
    pub(super) fn serialize<S: Serializer>(info: &Option<EngineInfo>, serializer: S) -> Result<S::Ok, S::Error> {
        match info {
            Some(info) => info.serialize(serializer),
            None => serializer.collect_map(std::iter::empty::<((), ())>()),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EngineInfo>, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(serde_json::from_value(value).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_of_the_controller_has_an_empty_engine_info() {
        let error = RemoteError::new("TaskTimeout", "");
        assert_eq!(
            serde_json::to_value(error.content()).unwrap(),
            json!({"status": "error", "ename": "TaskTimeout", "evalue": "", "traceback": ["TaskTimeout"], "engine_info": {}})
        );
    }

    #[test]
    fn an_error_comes_back_as_it_went() {
        let error = RemoteError::new("KeyError", "'x'").on_engine("e-1".into(), EngineId(3), "apply");
        let text = serde_json::to_string(&error.content()).unwrap();
        assert_eq!(serde_json::from_str::<RemoteError>(&text).unwrap(), error);
        let bare: RemoteError = serde_json::from_str(r#"{"status": "error", "ename": "E"}"#).unwrap();
        assert_eq!(bare.engine_info, None);
    }
}
