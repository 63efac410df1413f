//! Signed messages, made as fast as they can be: all that does not change is packed once.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::{Date, EngineUuid, Key, MsgType, Packer, Session, new_session_id};
use zmq::Message;

use remuda_proto::DELIMITER;

/// Size of the one buffer of a task, in bytes.
pub(crate) const PAYLOAD_BYTES: usize = 64;

/// A packed `{}`.
pub(crate) const EMPTY: &[u8] = b"{}";

/// The date of now.
pub(crate) fn today() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// 16 bytes that no other process of this machine has now.
pub(crate) fn some_bytes() -> [u8; 16] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let pid = u128::from(std::process::id());
    (since ^ (pid << 96)).to_be_bytes()
}

/// The uuid of null engine `number`: the same in every process, so that nothing has to be told.
pub(crate) fn engine_uuid(number: u32) -> EngineUuid {
    EngineUuid::from(new_session_id((0xe ^ (u128::from(number) << 64)).to_be_bytes()).as_str())
}

/// A session of the bench.
pub(crate) fn session(id: &str, key: &str) -> Session {
    Session::new(id.into(), "bench", Key::new(key), Packer::Json, std::process::id())
}

/// Headers that differ in their `msg_id` alone, which ends in a number.
#[derive(Debug)]
pub(crate) struct Headers {
    /// All that stands before the number.
    before: Vec<u8>,
    /// All that stands after it.
    after: Vec<u8>,
}

impl Headers {
    /// Headers of messages of this type from this session.
    pub(crate) fn new(session: &mut Session, msg_type: MsgType) -> Result<Self> {
        let header = session.header(today(), msg_type);
        let text = session.packer().pack(&header)?;
        let id = header.msg_id.as_str();
        let stem = &id[..=id.rfind('_').unwrap_or(0)];
        let before = format!("{{\"msg_id\":\"{stem}").into_bytes();
        ensure!(text.starts_with(&before), "a header begins with something other than its msg_id");
        let after = text[before.len() + id.len() - stem.len()..].to_vec();
        Ok(Self { before, after })
    }

    /// Writes the header of that number into `out`, over what is there.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.before);
        write!(out, "{number}").expect("writing to memory cannot fail");
        out.extend_from_slice(&self.after);
    }

    /// The number of a header, if it is one of these, byte for byte.
    pub(crate) fn number(&self, header: &[u8]) -> Option<u64> {
        let digits = header.strip_prefix(&self.before[..])?.strip_suffix(&self.after[..])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The packed metadata of a request from a `LoadBalancedView` that asks for nothing (wire reference, 1.9).
pub(crate) fn task_metadata() -> Result<Vec<u8>> {
    Ok(Packer::Json.pack(&TaskMetadata::default())?)
}

/// The packed metadata of a request to all these engines, each to be answered by itself (`client/view.py: BroadcastView`).
pub(crate) fn broadcast_metadata(engines: &[EngineUuid]) -> Result<Vec<u8>> {
    let targets: Vec<_> = engines.iter().enumerate().map(|(id, uuid)| (uuid, id)).collect();
    Ok(Packer::Json.pack(&serde_json::json!({
        "targets": targets, "is_broadcast": true, "is_coalescing": false, "status": "ok",
    }))?)
}

/// Where the parts of a message are among its frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Place of the delimiter: so many routing frames stand before it.
    pub(crate) delimiter: usize,
}

impl Layout {
    /// Of frames that are a message; `None` if they are none.
    pub(crate) fn of(frames: &[Message]) -> Option<Self> {
        let delimiter = frames.iter().position(|frame| **frame == *DELIMITER)?;
        (frames.len() >= delimiter + 6).then_some(Self { delimiter })
    }

    /// Place of the header; parent header, metadata and content follow it.
    pub(crate) fn header(self) -> usize {
        self.delimiter + 2
    }

    /// Whether the message is signed as it should be.
    pub(crate) fn is_signed(self, frames: &[Message], key: &Key) -> bool {
        let at = self.header();
        let signature = key.sign([&frames[at], &frames[at + 1], &frames[at + 2], &frames[at + 3]]);
        *frames[self.delimiter + 1] == *signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::Header;

    #[test]
    fn a_stamped_header_is_read_back() {
        let mut session = session(new_session_id([7; 16]).as_str(), "key");
        let headers = Headers::new(&mut session, MsgType::ApplyRequest).unwrap();
        let mut text = Vec::new();
        for number in [0, 9, 10, 123_456_789] {
            headers.write(number, &mut text);
            let header: Header = Packer::Json.unpack(&text).unwrap();
            assert!(header.msg_id.as_str().ends_with(&format!("_{number}")), "{header:?}");
            assert_eq!(header.msg_type, MsgType::ApplyRequest);
            assert_eq!(headers.number(&text), Some(number));
        }
        assert_eq!(headers.number(b"{\"msg_id\":\"x\"}"), None);
        assert_eq!(headers.number(b""), None);
    }

    #[test]
    fn engines_differ_in_their_uuid() {
        assert_ne!(engine_uuid(0), engine_uuid(1));
        assert_eq!(engine_uuid(3), engine_uuid(3));
    }

    #[test]
    fn a_message_is_found_behind_its_routing_frames() {
        let frames: Vec<Message> =
            [b"client", DELIMITER, b"sig", b"h", b"p", b"m", b"c"].into_iter().map(Message::from).collect();
        let layout = Layout::of(&frames).unwrap();
        assert_eq!((layout.delimiter, layout.header()), (1, 3));
        assert!(!layout.is_signed(&frames, &Key::new("key")));
        assert!(Layout::of(&frames[..6]).is_none());
        assert!(Layout::of(&frames[..1]).is_none());
    }
}
