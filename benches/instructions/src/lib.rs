//! Signed messages, made as fast as they can be: all that does not change is packed once.
//!
//! The benchmarks send them, and the program of this crate counts what the cores do with them: [`Headers`] is where to start. Nothing
//! here needs libzmq, so that a build of the program alone is a short one.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::{Date, EngineUuid, Key, MsgType, Packer, Session, new_session_id};

/// Size of the one buffer of a task, in bytes.
pub const PAYLOAD_BYTES: usize = 64;

/// A packed `{}`.
pub const EMPTY: &[u8] = b"{}";

/// The date of now.
pub fn today() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// 16 bytes that no other process of this machine has now.
pub fn some_bytes() -> [u8; 16] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let pid = u128::from(std::process::id());
    (since ^ (pid << 96)).to_be_bytes()
}

/// The uuid of null engine `number`: the same in every process, so that nothing has to be told.
pub fn engine_uuid(number: u32) -> EngineUuid {
    EngineUuid::from(new_session_id((0xe ^ (u128::from(number) << 64)).to_be_bytes()).as_str())
}

/// A session of the bench.
pub fn session(id: &str, key: &str) -> Session {
    Session::new(id.into(), "bench", Key::new(key), Packer::Json, std::process::id())
}

/// Headers that differ in their `msg_id` alone, which ends in a number.
#[derive(Debug)]
pub struct Headers {
    /// All that stands before the number.
    before: Vec<u8>,
    /// All that stands after it.
    after: Vec<u8>,
}

impl Headers {
    /// Headers of messages of this type from this session.
    pub fn new(session: &mut Session, msg_type: MsgType) -> Result<Self> {
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
    pub fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.before);
        write!(out, "{number}").expect("writing to memory cannot fail");
        out.extend_from_slice(&self.after);
    }

    /// The number of a header, if it is one of these, byte for byte.
    pub fn number(&self, header: &[u8]) -> Option<u64> {
        let digits = header.strip_prefix(&self.before[..])?.strip_suffix(&self.after[..])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The packed metadata of a request from a `LoadBalancedView` that asks for nothing (wire reference, 1.9).
pub fn task_metadata() -> Result<Vec<u8>> {
    Ok(Packer::Json.pack(&TaskMetadata::default())?)
}

/// The packed metadata of a request to all these engines, each to be answered by itself (`client/view.py: BroadcastView`).
pub fn broadcast_metadata(engines: &[EngineUuid]) -> Result<Vec<u8>> {
    let targets: Vec<_> = engines.iter().enumerate().map(|(id, uuid)| (uuid, id)).collect();
    Ok(Packer::Json.pack(&serde_json::json!({
        "targets": targets, "is_broadcast": true, "is_coalescing": false, "status": "ok",
    }))?)
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
}
