//! How the four parts of a message become bytes.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scan;

/// Most parts are shorter than this, headers too: they are packed without growing.
const USUAL_BYTES: usize = 384;

/// Why a part could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Not JSON, or JSON of another shape.
    #[error("not the JSON that was expected: {0}")]
    Json(#[from] serde_json::Error),
    /// Not MessagePack, or of another shape.
    #[error("not the MessagePack that was expected: {0}")]
    Msgpack(#[from] rmp_serde::decode::Error),
    /// A value that MessagePack cannot hold.
    #[error("cannot be written as MessagePack: {0}")]
    MsgpackWrite(#[from] rmp_serde::encode::Error),
    /// A packer named in a connection file or an option that we do not have.
    #[error("packer `{0}` is not supported: use `json`, `orjson` or `msgpack`")]
    Unsupported(String),
}

/// The packer of a cluster, named `pack` and `unpack` in its connection files
/// (`jupyter_client/session.py: Session._packer_unpacker_changed`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packer {
    /// UTF-8 JSON; also written `orjson`, which reads and writes the same.
    #[default]
    Json,
    /// MessagePack maps with text keys.
    Msgpack,
}

impl Packer {
    /// The packer of that name.
    ///
    /// # Errors
    /// [`PackError::Unsupported`] for `pickle` and for import paths, which only Python can follow.
    pub fn from_name(name: &str) -> Result<Self, PackError> {
        match name {
            "json" | "orjson" => Ok(Self::Json),
            "msgpack" => Ok(Self::Msgpack),
            _ => Err(PackError::Unsupported(name.to_owned())),
        }
    }

    /// Its name in connection files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Msgpack => "msgpack",
        }
    }

    /// Packs a value.
    ///
    /// # Errors
    /// For a value that JSON or MessagePack does not have.
    pub fn pack<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, PackError> {
        Ok(match self {
            Self::Json => {
                let mut packed = Vec::with_capacity(USUAL_BYTES);
                serde_json::to_writer(&mut packed, value)?;
                packed
            }
            Self::Msgpack => rmp_serde::to_vec_named(value)?,
        })
    }

    /// Unpacks a value, borrowing text from `bytes` where it can.
    ///
    /// # Errors
    /// For bytes that hold no such value.
    pub fn unpack<'a, T: Deserialize<'a>>(self, bytes: &'a [u8]) -> Result<T, PackError> {
        Ok(match self {
            Self::Json => serde_json::from_slice(bytes)?,
            Self::Msgpack => rmp_serde::from_slice(bytes)?,
        })
    }

    /// Unpacks a part whose absence is as good as an empty map: `None` for `{}`.
    ///
    /// # Errors
    /// For bytes that hold no such value.
    pub fn unpack_map<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<Option<T>, PackError> {
        if self.is_empty_map(bytes) { Ok(None) } else { self.unpack(bytes).map(Some) }
    }

    /// The values of these keys of a packed map that are texts. What is no map has none.
    pub fn texts<'a, const N: usize>(self, map: &'a [u8], keys: [&str; N]) -> [Option<Cow<'a, str>>; N] {
        if self == Self::Json
            && let Some(texts) = scan::pick(map, keys).and_then(scan::texts)
        {
            return texts;
        }
        let mut map: serde_json::Map<String, Value> = self.unpack(map).unwrap_or_default();
        keys.map(|key| match map.remove(key) {
            Some(Value::String(text)) => Some(Cow::Owned(text)),
            _ => None,
        })
    }

    /// The packed empty map.
    pub fn empty_map(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Msgpack => b"\x80",
        }
    }

    /// Whether `bytes` are the packed empty map as every peer writes it.
    pub fn is_empty_map(self, bytes: &[u8]) -> bool {
        bytes == self.empty_map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_packers_give_back_what_they_were_given() {
        let value = json!({"a": [1, 2.5, null, "é"], "b": {"c": true}});
        for packer in [Packer::Json, Packer::Msgpack] {
            let bytes = packer.pack(&value).unwrap();
            assert_eq!(packer.unpack::<Value>(&bytes).unwrap(), value);
            assert_eq!(packer.pack(&json!({})).unwrap(), packer.empty_map());
            assert_eq!(Packer::from_name(packer.name()).unwrap(), packer);
        }
    }

    #[test]
    fn texts_are_read_from_a_map_and_all_else_is_left_out() {
        let map = json!({"a": "x", "b": 5, "c": "\u{e9}\n\"", "d": null, "e": ["a"]});
        for packer in [Packer::Json, Packer::Msgpack] {
            let bytes = packer.pack(&map).unwrap();
            assert_eq!(packer.texts(&bytes, ["a", "b", "d", "z"]), [Some("x".into()), None, None, None]);
            assert_eq!(packer.texts(&bytes, ["c", "e", "a"]), [Some("\u{e9}\n\"".into()), None, Some("x".into())]);
            assert_eq!(packer.texts(b"[1]", ["a"]), [None]);
            assert_eq!(packer.texts(b"", ["a"]), [None]);
        }
        assert_eq!(Packer::Json.texts(br#"{"a": "x", "a": 1, "b": "y"}"#, ["a", "b"]), [None, Some("y".into())]);
    }

    #[test]
    fn a_packer_we_do_not_have_is_named() {
        assert_eq!(
            Packer::from_name("pickle").unwrap_err().to_string(),
            "packer `pickle` is not supported: use `json`, `orjson` or `msgpack`"
        );
    }
}
