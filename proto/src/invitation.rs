//! A connection as one word, which can be pasted on another machine.
//!
//! The word is `remuda:` and, in base64url, the connection file as compact JSON and the first bytes of its SHA-256: a word that lost
//! its end, or a letter, is known for what it is. A client's says so in the JSON (`"for": "client"`); an engine's says nothing, as
//! there were no others once. Whoever has it has the cluster's key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::connection::{ClientConnection, Common, ConnectionError, EngineConnection};

/// What each begins with, and no path of a file does unless it is meant to.
pub const PREFIX: &str = "remuda:";
/// How many bytes of the digest are there.
const DIGEST_BYTES: usize = 4;

/// For whom an invitation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// An engine, and the nannies of engines.
    #[default]
    Engine,
    /// A client.
    Client,
}

impl Guest {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_engine(&self) -> bool {
        *self == Self::Engine
    }

    /// The command that prints an invitation for it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Engine => "remuda cluster invite",
            Self::Client => "remuda cluster invite --client",
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "engine",
            Self::Client => "client",
        })
    }
}

/// A connection that an invitation can hold.
pub trait Invited: Serialize + DeserializeOwned {
    /// Whose it is.
    const GUEST: Guest;

    /// What the connections of all guests say.
    fn common(&self) -> &Common;

    /// The same, to be changed.
    fn common_mut(&mut self) -> &mut Common;
}

impl Invited for EngineConnection {
    const GUEST: Guest = Guest::Engine;

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }
}

impl Invited for ClientConnection {
    const GUEST: Guest = Guest::Client;

    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }
}

/// A word that is no invitation, or one that cannot be used. No message holds anything of the word, for it may hold a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// It begins otherwise.
    #[error("an invitation begins with `{PREFIX}`")]
    Prefix,
    /// Something in it is none of its letters.
    #[error(
        "character {at} of the invitation is {found:?}: only letters, digits, `-` and `_` can be in it after `{PREFIX}`"
    )]
    Character {
        /// The character.
        found: char,
        /// Which one it is, from 1.
        at: usize,
    },
    /// A part is missing, or was changed.
    #[error("the invitation is incomplete, or was changed on its way")]
    Damaged,
    /// It is good, but for another.
    #[error("the invitation is for {found}s, not for {wanted}s: `{}` prints one for these", wanted.command())]
    OtherGuest {
        /// For whom it is.
        found: Guest,
        /// Who is to take it.
        wanted: Guest,
    },
    /// It is whole, but not a connection as we know it.
    #[error("the invitation is one of another release")]
    Content(#[source] serde_json::Error),
    /// It asks for what we do not have.
    #[error("the invitation cannot be used")]
    Unusable(#[from] ConnectionError),
}

/// What stands in a word beside the connection.
#[derive(Serialize, Deserialize)]
struct Label {
    #[serde(rename = "for", default, skip_serializing_if = "Guest::is_engine")]
    guest: Guest,
}

#[derive(Serialize)]
struct Labelled<'a, C> {
    #[serde(flatten)]
    label: Label,
    #[serde(flatten)]
    connection: &'a C,
}

/// A connection as a word.
pub fn to_word<C: Invited>(connection: &C) -> String {
    let labelled = Labelled { label: Label { guest: C::GUEST }, connection };
    let mut bytes = serde_json::to_vec(&labelled).expect("plain data can be written");
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest[..DIGEST_BYTES]);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The connection that a word holds.
///
/// # Errors
/// When it is none, is for another guest, or asks for a packer or signature scheme that we do not have.
pub fn from_word<C: Invited>(word: &str) -> Result<C, InvitationError> {
    let data = word.strip_prefix(PREFIX).ok_or(InvitationError::Prefix)?;
    let is_letter = |found: char| found.is_ascii_alphanumeric() || matches!(found, '-' | '_');
    if let Some((at, found)) = word.chars().enumerate().skip(PREFIX.len()).find(|(_, found)| !is_letter(*found)) {
        return Err(InvitationError::Character { found, at: at + 1 });
    }
    let bytes = URL_SAFE_NO_PAD.decode(data).map_err(|_| InvitationError::Damaged)?;
    let (json, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(InvitationError::Damaged)?;
    if Sha256::digest(json)[..DIGEST_BYTES] != digest[..] {
        return Err(InvitationError::Damaged);
    }
    let Label { guest } = serde_json::from_slice(json).map_err(InvitationError::Content)?;
    if guest != C::GUEST {
        return Err(InvitationError::OtherGuest { found: guest, wanted: C::GUEST });
    }
    let connection: C = serde_json::from_slice(json).map_err(InvitationError::Content)?;
    connection.common().packer()?;
    connection.common().signing_key()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn common() -> Value {
        json!({
            "ssh": "", "interface": "tcp://10.0.0.1", "registration": 1, "key": "hunter2", "curve_serverkey": null, "location": "box",
            "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256", "control": 2, "mux": 3, "task": 4, "iopub": 5,
        })
    }

    fn with<C: Invited>(more: Value) -> C {
        let (Value::Object(mut whole), Value::Object(more)) = (common(), more) else { panic!("maps") };
        whole.extend(more);
        serde_json::from_value(Value::Object(whole)).unwrap()
    }

    fn engine() -> EngineConnection {
        with(json!({"hb_ping": 6, "hb_pong": 7, "broadcast": [8, 9]}))
    }

    fn client() -> ClientConnection {
        with(json!({"task_scheme": "lru", "notification": 6, "broadcast": 7}))
    }

    fn sealed(json: &[u8]) -> String {
        let mut whole = json.to_vec();
        whole.extend_from_slice(&Sha256::digest(json)[..DIGEST_BYTES]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(whole))
    }

    #[test]
    fn an_engines_word_is_its_file_alone_as_it_was_before_there_were_others() {
        assert_eq!(to_word(&engine()), sealed(&serde_json::to_vec(&engine()).unwrap()));
    }

    #[test]
    fn a_word_for_one_is_refused_by_the_other() {
        let (engines, clients) = (to_word(&engine()), to_word(&client()));
        assert_eq!(from_word::<EngineConnection>(&engines).unwrap(), engine());
        assert_eq!(from_word::<ClientConnection>(&clients).unwrap(), client());
        let refused = from_word::<ClientConnection>(&engines).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the invitation is for engines, not for clients: `remuda cluster invite --client` prints one for these"
        );
        let refused = from_word::<EngineConnection>(&clients).unwrap_err();
        assert!(matches!(refused, InvitationError::OtherGuest { found: Guest::Client, wanted: Guest::Engine }));
    }

    #[test]
    fn a_word_for_clients_has_their_curve_key() {
        let mut curved = client();
        curved.common.curve_serverkey = Some("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID".to_owned());
        assert_eq!(from_word::<ClientConnection>(&to_word(&curved)).unwrap(), curved);
    }

    #[test]
    fn what_is_wrong_with_a_word_is_named_without_its_key() {
        let word = to_word(&engine());
        let wrong = |word: &str| from_word::<EngineConnection>(word).unwrap_err();
        assert!(matches!(wrong("/p/security/ipcontroller-engine.json"), InvitationError::Prefix));
        assert!(wrong(&format!("{word}\n")).to_string().contains(&(word.len() + 1).to_string()));
        assert!(matches!(wrong(&word[..word.len() - 8]), InvitationError::Damaged));
        assert!(matches!(wrong(PREFIX), InvitationError::Damaged));
        let mut pickle = engine();
        pickle.common.pack = "pickle".into();
        assert!(matches!(wrong(&to_word(&pickle)), InvitationError::Unusable(_)));
        for text in ["{\"key\": \"hunter2\"}", "{\"for\": \"hunter2\"}"] {
            let other = wrong(&sealed(text.as_bytes()));
            assert!(matches!(other, InvitationError::Content(_)), "{other:?}");
        }
        let other = wrong(&sealed(b"{\"key\": \"hunter2\"}"));
        assert!(!format!("{other:?}").contains("hunter2"), "{other:?}");
    }
}
