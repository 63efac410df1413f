//! A cluster's engine connection as one word, which can be pasted on another machine.
//!
//! The word is `remuda:` and, in base64url, the connection file as compact JSON and the first bytes of its SHA-256: a word that lost
//! its end, or a letter, is known for what it is. Whoever has it has the cluster's key.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use remuda_proto::EngineConnection;
use remuda_proto::connection::{Common, ConnectionError};
use sha2::{Digest, Sha256};

/// What each begins with, and no path of a file does unless it is meant to.
pub const PREFIX: &str = "remuda:";
/// How many bytes of the digest are there.
const DIGEST_BYTES: usize = 4;

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
    /// It is whole, but not an engine's connection as we know it.
    #[error("the invitation is none for engines, or one of another release")]
    Content(#[source] serde_json::Error),
    /// It asks for what we do not have.
    #[error("the invitation cannot be used")]
    Unusable(#[from] ConnectionError),
}

/// A controller that nobody on another machine can reach.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// It listens where only this machine can connect to.
    #[error("the controller listens at `{interface}`, which other machines cannot reach")]
    Interface {
        /// Where.
        interface: String,
    },
    /// It listens at all addresses, and none is known.
    #[error("this machine has no name by which others could find it")]
    Nameless,
}

/// A connection as a word.
pub fn to_word(connection: &EngineConnection) -> String {
    let mut bytes = serde_json::to_vec(connection).expect("plain data can be written");
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest[..DIGEST_BYTES]);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The connection that a word holds.
///
/// # Errors
/// When it is none, or asks for a packer or signature scheme that we do not have.
pub fn from_word(word: &str) -> Result<EngineConnection, InvitationError> {
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
    let connection: EngineConnection = serde_json::from_slice(json).map_err(InvitationError::Content)?;
    connection.common.packer()?;
    connection.common.signing_key()?;
    Ok(connection)
}

/// A connection as engines of other machines need it: at `host`, if that is given, else where the controller can be reached by its
/// address, or by the host name in its file, or by `own_name`, that of this machine.
///
/// # Errors
/// When there is no such address.
pub fn for_others(
    mut connection: EngineConnection,
    host: Option<&str>,
    own_name: Option<&str>,
) -> Result<EngineConnection, Unreachable> {
    let common = &mut connection.common;
    let unreachable = |common: &Common| Unreachable::Interface { interface: common.interface.clone() };
    if common.transport() != "tcp" {
        return Err(unreachable(common));
    }
    if let Some(host) = host {
        // What is said of the host is looked up where the engine is.
        "tcp://*".clone_into(&mut common.interface);
        host.clone_into(&mut common.location);
        return Ok(connection);
    }
    if is_loopback(common.ip()) {
        return Err(unreachable(common));
    }
    if matches!(common.ip(), "*" | "0.0.0.0") && (common.location.is_empty() || is_loopback(&common.location)) {
        let name = own_name.filter(|name| !name.is_empty() && !is_loopback(name)).ok_or(Unreachable::Nameless)?;
        name.clone_into(&mut common.location);
    }
    Ok(connection)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(interface: &str, location: &str) -> EngineConnection {
        let json = serde_json::json!({
            "interface": interface, "location": location, "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5,
            "hb_ping": 6, "hb_pong": 7, "broadcast": [8, 9], "key": "hunter2",
        });
        serde_json::from_value(json).unwrap()
    }

    fn address(interface: &str, location: &str, host: Option<&str>) -> Result<(String, String), Unreachable> {
        let common = for_others(connection(interface, location), host, Some("own"))?.common;
        Ok((common.interface, common.location))
    }

    #[test]
    fn others_are_told_an_address_that_is_not_their_own() {
        let told = |interface: &str, location: &str| Ok((interface.to_owned(), location.to_owned()));
        assert_eq!(address("tcp://*", "box", None), told("tcp://*", "box"));
        for location in ["", "localhost", "127.0.0.1", "::1"] {
            assert_eq!(address("tcp://0.0.0.0", location, None), told("tcp://0.0.0.0", "own"), "{location}");
        }
        assert_eq!(address("tcp://10.0.0.1", "box", None), told("tcp://10.0.0.1", "box"));
        assert_eq!(address("tcp://127.0.0.1", "box", Some("gate")), told("tcp://*", "gate"));
    }

    #[test]
    fn where_only_this_machine_connects_nobody_is_invited() {
        for (interface, host) in [("tcp://127.0.0.1", None), ("ipc:///p/x", None), ("ipc:///p/x", Some("gate"))] {
            let refused = address(interface, "box", host).unwrap_err();
            assert!(refused.to_string().contains(interface), "{refused}");
        }
        let nameless = for_others(connection("tcp://*", ""), None, Some("localhost"));
        assert_eq!(nameless, Err(Unreachable::Nameless));
    }

    #[test]
    fn what_is_wrong_with_a_word_is_named_without_its_key() {
        let word = to_word(&connection("tcp://10.0.0.1", "box"));
        let wrong = |word: &str| from_word(word).unwrap_err();
        assert!(matches!(wrong("/p/security/ipcontroller-engine.json"), InvitationError::Prefix));
        assert!(wrong(&format!("{word}\n")).to_string().contains(&(word.len() + 1).to_string()));
        assert!(matches!(wrong(&word[..word.len() - 8]), InvitationError::Damaged));
        assert!(matches!(wrong(PREFIX), InvitationError::Damaged));
        let mut pickle = connection("tcp://10.0.0.1", "box");
        pickle.common.pack = "pickle".into();
        assert!(matches!(wrong(&to_word(&pickle)), InvitationError::Unusable(_)));
        let mut whole = b"{\"key\": \"hunter2\"}".to_vec();
        whole.extend_from_slice(&Sha256::digest(b"{\"key\": \"hunter2\"}")[..DIGEST_BYTES]);
        let other = wrong(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(whole)));
        assert!(matches!(other, InvitationError::Content(_)) && !format!("{other:?}").contains("hunter2"), "{other:?}");
    }
}
