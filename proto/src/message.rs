//! Headers, types and contents of messages.

pub mod content;
pub mod definition;
pub mod metadata;
pub mod native;
pub mod needs;
pub mod probe;
pub mod restart;
pub mod story;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Map;
use crate::frames::Body;
use crate::id::{MsgId, SessionId};
use crate::pack::{PackError, Packer};
use crate::scan;

/// The `version` of every header we write. A header without one would be taken for an older protocol and rewritten
/// (`jupyter_client/adapter.py`).
pub const PROTOCOL_VERSION: &str = "5.4";

/// A header, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Names the message.
    pub msg_id: MsgId,
    /// What it is.
    pub msg_type: MsgType,
    /// Who sent it, for people.
    #[serde(default)]
    pub username: String,
    /// The session that signed it.
    #[serde(default = "no_session")]
    pub session: SessionId,
    /// When it was made, ISO 8601. Kept as text, since a peer may write what is no date.
    #[serde(default)]
    pub date: String,
    /// Version of the message protocol, [`PROTOCOL_VERSION`] in ours.
    #[serde(default)]
    pub version: String,
    /// Keys that we do not know; kept, so that a header can be written again as it was.
    #[serde(flatten)]
    pub extra: Map<String, serde_json::Value>,
}

fn no_session() -> SessionId {
    SessionId::from("")
}

/// What is read of a header to relay, place and track a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Names the message.
    pub msg_id: MsgId,
    /// What it is.
    pub msg_type: MsgType,
    /// The session that signed it; empty if the header has none.
    pub session: SessionId,
}

#[derive(Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow)]
    msg_id: Cow<'a, str>,
    msg_type: MsgType,
    #[serde(borrow, default)]
    session: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawParent<'a> {
    #[serde(borrow, default)]
    msg_id: Option<Cow<'a, str>>,
}

impl Envelope {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// When the header cannot be unpacked.
    pub fn read(packer: Packer, body: &Body) -> Result<Self, PackError> {
        if packer == Packer::Json
            && let Some(envelope) = Self::scan(body.header())
        {
            return Ok(envelope);
        }
        let raw: RawEnvelope<'_> = packer.unpack(body.header())?;
        Ok(Self { msg_id: MsgId::from(&*raw.msg_id), msg_type: raw.msg_type, session: SessionId::from(&*raw.session) })
    }
}

impl Envelope {
    /// Reads what a header commonly looks like; `None` leaves it to the full parser.
    fn scan(header: &[u8]) -> Option<Self> {
        let [msg_id, msg_type, session] = scan::pick(header, ["msg_id", "msg_type", "session"])?;
        Some(Self {
            msg_id: MsgId::from(scan::text(msg_id?)?),
            msg_type: MsgType::from(scan::text(msg_type?)?),
            session: SessionId::from(scan::text(session?)?),
        })
    }
}

/// The `msg_id` of the request that a message answers; `None` if its parent header is empty.
///
/// # Errors
/// When the parent header cannot be unpacked.
pub fn parent_msg_id(packer: Packer, body: &Body) -> Result<Option<MsgId>, PackError> {
    if packer.is_empty_map(body.parent_header()) {
        return Ok(None);
    }
    if packer == Packer::Json
        && let Some(msg_id) = scan::first(body.parent_header(), "msg_id").and_then(scan::text)
    {
        return Ok(Some(MsgId::from(msg_id)));
    }
    let raw: RawParent<'_> = packer.unpack(body.parent_header())?;
    Ok(raw.msg_id.map(|id| MsgId::from(&*id)))
}

/// How a task ended, as its reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran and gave a result.
    Ok,
    /// It raised, or was lost.
    Error,
    /// It was told not to run.
    Aborted,
}

macro_rules! msg_types {
    ($($variant:ident = $text:literal,)*) => {
        /// The type of a message.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum MsgType {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// A type that we do not know.
            Other(Box<str>),
        }

        impl MsgType {
            /// The type as it is written on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for MsgType {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text.into()),
                }
            }
        }

        #[cfg(test)]
        const NAMED: &[&str] = &[$($text),*];
    };
}

msg_types! {
    AbortReply = "abort_reply",
    AbortRequest = "abort_request",
    ApplyReply = "apply_reply",
    ApplyRequest = "apply_request",
    ClearReply = "clear_reply",
    ClearRequest = "clear_request",
    ConnectionReply = "connection_reply",
    ConnectionRequest = "connection_request",
    DbReply = "db_reply",
    DbRequest = "db_request",
    DisplayData = "display_data",
    DrainReply = "drain_reply",
    DrainRequest = "drain_request",
    DumpReply = "dump_reply",
    DumpRequest = "dump_request",
    Error = "error",
    ExecuteInput = "execute_input",
    ExecuteReply = "execute_reply",
    ExecuteRequest = "execute_request",
    ExecuteResult = "execute_result",
    HistoryReply = "history_reply",
    HistoryRequest = "history_request",
    HubError = "hub_error",
    IopubWelcome = "iopub_welcome",
    KernelInfoReply = "kernel_info_reply",
    KernelInfoRequest = "kernel_info_request",
    LoadReply = "load_reply",
    LoadRequest = "load_request",
    OutputReply = "output_reply",
    OutputRequest = "output_request",
    ProcessDefinitionReply = "process_definition_reply",
    ProcessDefinitionRequest = "process_definition_request",
    PurgeReply = "purge_reply",
    PurgeRequest = "purge_request",
    QueueReply = "queue_reply",
    QueueRequest = "queue_request",
    RegistrationNotification = "registration_notification",
    RegistrationReply = "registration_reply",
    RegistrationRequest = "registration_request",
    ResubmitReply = "resubmit_reply",
    ResubmitRequest = "resubmit_request",
    ResultReply = "result_reply",
    ResultRequest = "result_request",
    ShutdownNotification = "shutdown_notification",
    ShutdownReply = "shutdown_reply",
    ShutdownRequest = "shutdown_request",
    SignalReply = "signal_reply",
    SignalRequest = "signal_request",
    Status = "status",
    StoryReply = "story_reply",
    StoryRequest = "story_request",
    Stream = "stream",
    UnregistrationNotification = "unregistration_notification",
    UnregistrationRequest = "unregistration_request",
}

impl MsgType {
    /// The type of the reply to this request: `x_reply` for `x_request`.
    #[must_use]
    pub fn reply(&self) -> Self {
        let text = self.as_str();
        Self::from(&*format!("{}_reply", text.strip_suffix("_request").unwrap_or(text)))
    }
}

impl fmt::Display for MsgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl Serialize for MsgType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
impl<'de> Deserialize<'de> for MsgType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = MsgType;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message type")
            }
            fn visit_str<E>(self, text: &str) -> Result<MsgType, E> {
                Ok(MsgType::from(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_as_it_is_written() {
        for text in NAMED {
            let msg_type = MsgType::from(*text);
            assert!(!matches!(msg_type, MsgType::Other(_)));
            assert_eq!(msg_type.as_str(), *text);
        }
        assert_eq!(MsgType::from("foo_request").reply(), MsgType::Other("foo_reply".into()));
        assert_eq!(MsgType::ApplyRequest.reply(), MsgType::ApplyReply);
    }

    #[test]
    fn a_header_keeps_what_it_does_not_know() {
        let text = r#"{"msg_id":"a","msg_type":"status","username":"u","session":"s","date":"2026-11-22T01:37:19Z","version":"5.4","subshell_id":null}"#;
        let header: Header = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&header).unwrap(), text);
        let short: Header = serde_json::from_str(r#"{"msg_id": "a", "msg_type": "b"}"#).unwrap();
        assert_eq!(short.session.as_str(), "");
    }
}
