//! Making, signing and verifying messages.

use std::fmt;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::frames::{Body, BodyBuilder};
use crate::id::{MsgId, SessionId};
use crate::message::{Header, MsgType, PROTOCOL_VERSION};
use crate::pack::{PackError, Packer};
use crate::time::Date;
use crate::{Map, Set};

/// How many signatures a [`SeenSignatures`] remembers (`jupyter_client/session.py: digest_history_size`).
pub const SEEN_SIGNATURES: usize = 65_536;

const DIGEST_BYTES: usize = 32;

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Another scheme than HMAC-SHA256.
    #[error("signature scheme `{0}` is not supported: use `hmac-sha256`")]
    UnsupportedScheme(String),
}

/// Why a message is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No signature, though the cluster signs.
    #[error("unsigned message")]
    Unsigned,
    /// The signature is not that of these bytes with this key.
    #[error("invalid signature")]
    Invalid,
    /// The signature came before: a replay.
    #[error("duplicate signature")]
    Duplicate,
}

/// The key that signs all messages of a cluster: the bytes of the text in the connection file. An empty key signs
/// nothing and believes everything (`jupyter_client/session.py: Session.sign`).
#[derive(Clone)]
pub struct Key(Option<Hmac<Sha256>>);

impl Key {
    /// The key of that text.
    pub fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self(None);
        }
        Self(Some(Hmac::new_from_slice(text.as_bytes()).expect("HMAC takes keys of any length")))
    }

    /// The key of a connection file.
    ///
    /// # Errors
    /// For a signature scheme other than `hmac-sha256`.
    pub fn with_scheme(text: &str, scheme: &str) -> Result<Self, KeyError> {
        if scheme != "hmac-sha256" && !text.is_empty() {
            return Err(KeyError::UnsupportedScheme(scheme.to_owned()));
        }
        Ok(Self::new(text))
    }

    /// Whether messages are signed at all.
    pub fn signs(&self) -> bool {
        self.0.is_some()
    }

    /// The signature of the four packed parts: lower-case hex, or empty without a key.
    pub fn sign(&self, parts: [&[u8]; 4]) -> Vec<u8> {
        let Some(mac) = self.mac(parts) else { return Vec::new() };
        let digest = mac.finalize().into_bytes();
        let mut text = Vec::with_capacity(2 * DIGEST_BYTES);
        for byte in digest {
            text.extend([hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        text
    }

    /// Checks the signature of a message, in constant time.
    ///
    /// # Errors
    /// When it is not signed, or with another key.
    pub fn verify(&self, body: &Body) -> Result<(), VerifyError> {
        if !self.signs() {
            return Ok(());
        }
        let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
        let Some(mac) = self.mac(parts) else { return Ok(()) };
        if body.signature().is_empty() {
            return Err(VerifyError::Unsigned);
        }
        let digest = from_hex(body.signature()).ok_or(VerifyError::Invalid)?;
        mac.verify_slice(&digest).map_err(|_| VerifyError::Invalid)
    }

    fn mac(&self, parts: [&[u8]; 4]) -> Option<Hmac<Sha256>> {
        let mut mac = self.0.clone()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.signs() { "Key(secret)" } else { "Key(none)" })
    }
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value)]
}

/// Reads exactly a digest in lower-case hex, as Python compares the text.
///
/// Without a branch for each digit: which digits come is as good as random, and half of such branches are guessed wrong.
fn from_hex(text: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
    let text: &[u8; 2 * DIGEST_BYTES] = text.try_into().ok()?;
    let mut digest = [0; DIGEST_BYTES];
    let mut seen = 0;
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (HEX_VALUES[usize::from(pair[0])], HEX_VALUES[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen < 16).then_some(digest)
}

/// The value of each lower-case hex digit, and 255 for what is none.
const HEX_VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// Signatures that came before, so that a replayed message is refused. The oldest are forgotten beyond
/// [`SEEN_SIGNATURES`]; Python forgets random ones (`jupyter_client/session.py: Session._cull_digest_history`).
#[derive(Debug, Clone)]
pub struct SeenSignatures {
    /// The remembered signatures. No more than `limit` in `young` and `old` together.
    young: Set<[u8; DIGEST_BYTES]>,
    /// Those of the generation before, dropped whole when `young` has grown to half the limit.
    old: Set<[u8; DIGEST_BYTES]>,
    limit: usize,
}

impl SeenSignatures {
    /// Remembers between `limit / 2` and `limit` signatures.
    pub fn new(limit: usize) -> Self {
        Self { young: Set::default(), old: Set::default(), limit: limit.max(2) }
    }

    /// Remembers the signature of a *verified* message.
    ///
    /// # Errors
    /// [`VerifyError::Duplicate`] if it came before.
    pub fn check(&mut self, body: &Body) -> Result<(), VerifyError> {
        // An unsigned message has nothing to compare: without a key there is no guard, as in stock.
        let Some(digest) = from_hex(body.signature()) else { return Ok(()) };
        if self.old.contains(&digest) || self.young.contains(&digest) {
            return Err(VerifyError::Duplicate);
        }
        self.young.insert(digest);
        if self.young.len() >= self.limit / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        Ok(())
    }
}

impl Default for SeenSignatures {
    fn default() -> Self {
        Self::new(SEEN_SIGNATURES)
    }
}

/// One end of the conversation: makes signed messages with ids of its own, and verifies those of others.
#[derive(Clone, Debug)]
pub struct Session {
    id: SessionId,
    username: String,
    key: Key,
    packer: Packer,
    /// What stands before the counter in a `msg_id`.
    prefix: String,
    counter: u64,
}

impl Session {
    /// A session whose messages are numbered from 0. `pid` only tells its messages from those of a twin with the same
    /// id in another process.
    pub fn new(id: SessionId, username: &str, key: Key, packer: Packer, pid: u32) -> Self {
        let prefix = format!("{id}_{pid}_");
        Self { id, username: username.to_owned(), key, packer, prefix, counter: 0 }
    }

    /// The session id that stands in the headers.
    pub fn id(&self) -> &SessionId {
        &self.id
    }
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }
    /// The packer.
    pub fn packer(&self) -> Packer {
        self.packer
    }

    /// A header for the next message.
    pub fn header(&mut self, date: Date, msg_type: MsgType) -> Header {
        let msg_id = MsgId::from(format!("{}{}", self.prefix, self.counter));
        self.counter += 1;
        self.header_of(msg_id, date, msg_type)
    }

    /// A header for a message whose id the caller made.
    pub fn header_of(&self, msg_id: MsgId, date: Date, msg_type: MsgType) -> Header {
        Header {
            msg_id,
            msg_type,
            username: self.username.clone(),
            session: self.id.clone(),
            date: date.to_string(),
            version: PROTOCOL_VERSION.to_owned(),
            extra: Map::default(),
        }
    }

    /// A new signed message. `parent` is the packed header of the request that it answers.
    ///
    /// # Errors
    /// When metadata or content have no packed form (a map whose keys are no text, say).
    pub fn message(
        &mut self,
        date: Date,
        msg_type: MsgType,
        parent: Option<&[u8]>,
        metadata: &(impl Serialize + ?Sized),
        content: &(impl Serialize + ?Sized),
        buffers: &[Bytes],
    ) -> Result<(MsgId, Body), PackError> {
        let header = self.header(date, msg_type);
        let body = self.assemble(&header, parent, metadata, content, buffers)?;
        Ok((header.msg_id, body))
    }

    /// A signed message under a header that the caller made.
    ///
    /// # Errors
    /// When the content or the metadata cannot be packed.
    pub fn assemble(
        &self,
        header: &Header,
        parent: Option<&[u8]>,
        metadata: &(impl Serialize + ?Sized),
        content: &(impl Serialize + ?Sized),
        buffers: &[Bytes],
    ) -> Result<Body, PackError> {
        let header = self.packer.pack(header)?;
        let metadata = self.packer.pack(metadata)?;
        let content = self.packer.pack(content)?;
        let parent = parent.unwrap_or_else(|| self.packer.empty_map());
        Ok(self.sign_parts([&header, parent, &metadata, &content], buffers.iter().cloned()))
    }

    /// A signed message of four parts that are packed already.
    pub fn sign_parts(&self, parts: [&[u8]; 4], buffers: impl IntoIterator<Item = Bytes>) -> Body {
        let mut builder = BodyBuilder::default();
        let signature = self.key.sign(parts);
        builder.reserve([&*signature].into_iter().chain(parts));
        builder.push(&signature);
        parts.iter().for_each(|part| builder.push(part));
        buffers.into_iter().for_each(|buffer| builder.push_bytes(buffer));
        builder.finish().expect("a signature and four parts make a body")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::new_session_id;
    use serde_json::json;

    fn session(key: &str) -> Session {
        Session::new(new_session_id([1; 16]), "ann", Key::new(key), Packer::Json, 7)
    }

    fn body(session: &mut Session) -> Body {
        session
            .message(Date(0), MsgType::ConnectionRequest, None, &json!({}), &json!({}), &[Bytes::from_static(b"x")])
            .unwrap()
            .1
    }

    fn altered(body: &Body, at: usize) -> Body {
        let mut builder = BodyBuilder::default();
        for (index, part) in body.parts().enumerate() {
            if index == at { builder.push(b"altered") } else { builder.push(part) }
        }
        builder.finish().unwrap()
    }

    #[test]
    fn the_signature_covers_the_four_parts_and_no_buffer() {
        let mut session = session("secret");
        let body = body(&mut session);
        assert_eq!(session.key().verify(&body), Ok(()));
        for at in 0..5 {
            assert_eq!(session.key().verify(&altered(&body, at)), Err(VerifyError::Invalid), "part {at}");
        }
        assert_eq!(session.key().verify(&altered(&body, 5)), Ok(()));
        assert_eq!(Key::new("other").verify(&body), Err(VerifyError::Invalid));
    }

    #[test]
    fn an_empty_key_signs_nothing_and_believes_everything() {
        let mut unsigned = session("");
        let body = body(&mut unsigned);
        assert!(body.signature().is_empty());
        assert_eq!(unsigned.key().verify(&body), Ok(()));
        assert_eq!(unsigned.key().verify(&altered(&body, 0)), Ok(()));
        assert_eq!(session("secret").key().verify(&body), Err(VerifyError::Unsigned));
    }

    #[test]
    fn upper_case_hex_is_not_the_signature() {
        let mut session = session("secret");
        let body = body(&mut session);
        let upper = body.signature().to_ascii_uppercase();
        let mut builder = BodyBuilder::default();
        builder.push(&upper);
        body.parts().skip(1).for_each(|part| builder.push(part));
        assert_eq!(session.key().verify(&builder.finish().unwrap()), Err(VerifyError::Invalid));
    }

    #[test]
    fn what_is_no_lower_case_digit_stands_for_none() {
        let digits = "0123456789abcdef".repeat(4);
        let digest = from_hex(digits.as_bytes()).unwrap();
        assert_eq!((digest[0], digest[7], digest[31]), (0x01, 0xef, 0xef));
        for at in [0, 15, 63] {
            for wrong in (0..=u8::MAX).filter(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                let mut text = digits.clone().into_bytes();
                text[at] = wrong;
                assert_eq!(from_hex(&text), None, "{wrong} at {at}");
            }
        }
        for length in [0, 62, 63, 65] {
            assert_eq!(from_hex(&digits.repeat(2).as_bytes()[..length]), None, "{length} digits");
        }
    }

    #[test]
    fn a_replay_is_seen_and_memory_of_it_is_bounded() {
        let mut session = session("secret");
        let mut seen = SeenSignatures::new(8);
        let first = body(&mut session);
        assert_eq!(seen.check(&first), Ok(()));
        assert_eq!(seen.check(&first), Err(VerifyError::Duplicate));
        for _ in 0..3 {
            assert_eq!(seen.check(&body(&mut session)), Ok(()));
            assert_eq!(seen.check(&first), Err(VerifyError::Duplicate));
        }
        for _ in 0..100 {
            seen.check(&body(&mut session)).unwrap();
            assert!(seen.young.len() + seen.old.len() <= 8);
        }
        assert_eq!(seen.check(&first), Ok(()), "long ago");
    }

    #[test]
    fn the_key_is_never_shown() {
        assert_eq!(format!("{:?}", Key::new("secret")), "Key(secret)");
        assert!(!format!("{:?}", session("hunter2")).contains("hunter2"));
    }

    #[test]
    fn another_scheme_is_refused_by_name() {
        assert!(Key::with_scheme("k", "hmac-md5").unwrap_err().to_string().contains("`hmac-md5`"));
        assert!(!Key::with_scheme("", "hmac-md5").unwrap().signs());
    }
}
