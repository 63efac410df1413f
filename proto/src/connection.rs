//! The two connection files, as data (`controller/app.py: save_connection_dict`).

use serde::{Deserialize, Deserializer, Serialize};

use crate::pack::{PackError, Packer};
use crate::session::{Key, KeyError};

/// What both files say.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// SSH server to tunnel through; empty: none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub ssh: String,
    /// `<transport>://<ip>`; the ip may be `*` or `0.0.0.0`.
    pub interface: String,
    /// Port of the hub.
    pub registration: u16,
    /// HMAC key, as text; empty: nothing is signed.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub key: String,
    /// Public key of the server with CURVE.
    #[serde(default)]
    pub curve_serverkey: Option<String>,
    /// Host name of the controller.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub location: String,
    /// Packer.
    #[serde(default = "json")]
    pub pack: String,
    /// Unpacker: the same.
    #[serde(default = "json")]
    pub unpack: String,
    /// How messages are signed.
    #[serde(default = "hmac_sha256")]
    pub signature_scheme: String,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common")
            .field("interface", &self.interface)
            .field("registration", &self.registration)
            .field("location", &self.location)
            .field("pack", &self.pack)
            .field("key", &if self.key.is_empty() { "none" } else { "secret" })
            .finish_non_exhaustive()
    }
}

/// A connection file that is read but cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Its `pack` or `unpack`.
    #[error(transparent)]
    Packer(#[from] PackError),
    /// Its `signature_scheme`.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `pack` and `unpack` differ.
    #[error("`pack` is `{pack}` but `unpack` is `{unpack}`: they must be the same")]
    PackersDiffer {
        /// `pack`
        pack: String,
        /// `unpack`
        unpack: String,
    },
}

impl Common {
    /// The packer.
    ///
    /// # Errors
    /// When the file names one that is not known, or two.
    pub fn packer(&self) -> Result<Packer, ConnectionError> {
        let (pack, unpack) = (Packer::from_name(&self.pack)?, Packer::from_name(&self.unpack)?);
        if pack != unpack {
            return Err(ConnectionError::PackersDiffer { pack: self.pack.clone(), unpack: self.unpack.clone() });
        }
        Ok(pack)
    }

    /// The key.
    ///
    /// # Errors
    /// When the file names a signature scheme that is not known.
    pub fn signing_key(&self) -> Result<Key, ConnectionError> {
        Ok(Key::with_scheme(&self.key, &self.signature_scheme)?)
    }

    /// The transport of `interface`: `tcp`, say.
    pub fn transport(&self) -> &str {
        self.interface.split_once("://").map_or("tcp", |(transport, _)| transport)
    }

    /// The ip of `interface`.
    pub fn ip(&self) -> &str {
        self.interface.split_once("://").map_or(&*self.interface, |(_, ip)| ip)
    }
}

/// `ipcontroller-client.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConnection {
    /// What both files say.
    #[serde(flatten)]
    pub common: Common,
    /// Port of the control queue.
    pub control: u16,
    /// Port of the direct queue.
    pub mux: u16,
    /// Port of the task scheduler.
    pub task: u16,
    /// The scheduler's scheme, or `pure`, or `none`.
    #[serde(default)]
    pub task_scheme: String,
    /// Port of the engines' output.
    pub iopub: u16,
    /// Port of the hub's notifications.
    pub notification: u16,
    /// Port of the broadcast scheduler.
    pub broadcast: u16,
}

/// `ipcontroller-engine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineConnection {
    /// What both files say.
    #[serde(flatten)]
    pub common: Common,
    /// Port of the control queue.
    pub control: u16,
    /// Port of the direct queue.
    pub mux: u16,
    /// Port of the task scheduler.
    pub task: u16,
    /// Port for the engines' output.
    pub iopub: u16,
    /// Port on which pings are published.
    pub hb_ping: u16,
    /// Port that takes the pongs.
    pub hb_pong: u16,
    /// Ports of the broadcast leaves; engine `id` connects to number `id` modulo their count.
    pub broadcast: Vec<u16>,
}

fn json() -> String {
    "json".to_owned()
}
fn hmac_sha256() -> String {
    "hmac-sha256".to_owned()
}
fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = r#"{"ssh": "", "interface": "tcp://127.0.0.1", "registration": 1, "control": 2, "mux": 3,
        "task": 4, "task_scheme": "leastload", "iopub": 5, "notification": 6, "broadcast": 7, "key": "k",
        "curve_serverkey": null, "location": "h", "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256"}"#;

    #[test]
    fn a_stock_client_file_is_read() {
        let file: ClientConnection = serde_json::from_str(CLIENT).unwrap();
        assert_eq!((file.common.transport(), file.common.ip(), file.mux), ("tcp", "127.0.0.1", 3));
        assert!(file.common.signing_key().unwrap().signs());
        let again: ClientConnection = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
        assert_eq!(again, file);
    }

    #[test]
    fn the_key_is_never_shown() {
        let file: ClientConnection = serde_json::from_str(&CLIENT.replace("\"k\"", "\"hunter2\"")).unwrap();
        assert!(!format!("{file:?}").contains("hunter2"));
    }

    #[test]
    fn packers_must_be_ones_we_have_and_agree() {
        let mut file: ClientConnection = serde_json::from_str(CLIENT).unwrap();
        file.common.pack = "pickle".into();
        assert!(file.common.packer().unwrap_err().to_string().contains("`pickle`"));
        file.common.pack = "msgpack".into();
        assert!(matches!(file.common.packer(), Err(ConnectionError::PackersDiffer { .. })));
        file.common.unpack = "msgpack".into();
        assert_eq!(file.common.packer().unwrap(), Packer::Msgpack);
    }
}
