//! What names a message, an engine, a client or a session.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as it is written on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// Names a request, and so its task: `<session>_<pid>_<counter>` from a Python client. Any text is accepted.
    MsgId
}
text_id! {
    /// The text by which an engine is known everywhere: its session id and its `ZeroMQ` identity.
    EngineUuid
}
text_id! {
    /// Names the session that signs; a client's session id is the `client_uuid` of its task records.
    SessionId
}

impl EngineUuid {
    /// The engine's `ZeroMQ` identity.
    pub fn identity(&self) -> Identity {
        Identity::from(self.0.as_bytes())
    }
}

/// The small integer by which people know an engine. Counted from 0, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineId(pub u32);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A routing frame: any bytes. That of a client is five bytes made by its ROUTER and means something only there.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(SmallVec<[u8; 40]>);

impl Clone for Identity {
    /// Copies all bytes at once; what is derived goes byte by byte.
    fn clone(&self) -> Self {
        Self(SmallVec::from_slice(&self.0))
    }
}

impl Identity {
    /// The bytes of the frame.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The engine that this identity names, if it is text (identities of engines are).
    pub fn to_engine(&self) -> Option<EngineUuid> {
        std::str::from_utf8(&self.0).ok().map(EngineUuid::from)
    }
}

impl From<&[u8]> for Identity {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) => f.write_str(text),
            _ => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes 16 bytes that the caller drew as a session id: 8 hex digits, a dash, 24 hex digits
/// (`jupyter_client/session.py: new_id`).
pub fn new_session_id(random: [u8; 16]) -> SessionId {
    use fmt::Write;
    let mut text = String::with_capacity(33);
    for (at, byte) in random.iter().enumerate() {
        if at == 4 {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    SessionId::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_looks_like_those_of_jupyter() {
        let id = new_session_id([0xab; 16]);
        assert_eq!(id.as_str(), "abababab-abababababababababababab");
    }

    #[test]
    fn an_identity_shows_as_text_only_where_it_is_text() {
        assert_eq!(Identity::from(&b"engine-1"[..]).to_string(), "engine-1");
        assert_eq!(Identity::from(&[0, 0x6b, 0x8b][..]).to_string(), "0x006b8b");
        assert_eq!(Identity::from(&b""[..]).to_string(), "0x");
    }
}
