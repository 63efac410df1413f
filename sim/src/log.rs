//! What happened: a digest always, and the lines when they are wanted.

use std::fmt;

use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, Envelope, Instant, MsgId, Packer};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Instant,
    /// What.
    pub text: String,
    /// Which request it is about, if it is about one.
    pub msg_id: Option<MsgId>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06} {}", self.at.0 / 1_000_000_000, self.at.0 % 1_000_000_000 / 1000, self.text)
    }
}

/// The log of a run. Two runs are the same if their digests are.
#[derive(Debug)]
pub struct Log {
    /// FNV-1a over everything noted.
    digest: u64,
    /// The lines, if they are recorded.
    lines: Option<Vec<Line>>,
    packer: Packer,
}

impl Log {
    /// An empty log. Lines cost more than the run itself, so they are recorded only on request.
    pub fn new(packer: Packer, record: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, lines: record.then(Vec::new), packer }
    }

    /// The digest of all that was noted.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines recorded; none are recorded any more.
    pub fn take_lines(&mut self) -> Vec<Line> {
        self.lines.take().unwrap_or_default()
    }

    /// Notes that something happened.
    pub fn note(&mut self, at: Instant, what: impl fmt::Display) {
        self.mix(&at.0.to_le_bytes());
        let text = what.to_string();
        self.mix(text.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, text, msg_id: None });
        }
    }

    /// Notes that something happened to a request.
    pub fn about(&mut self, at: Instant, msg_id: &MsgId, what: impl fmt::Display) {
        self.note(at, what);
        if let Some(line) = self.lines.as_mut().and_then(|lines| lines.last_mut()) {
            line.msg_id = Some(msg_id.clone());
        }
    }

    /// Notes that a message passed a place. The digest takes the place; the words are made only for a line.
    pub fn message(&mut self, at: Instant, place: u8, body: &Body, what: impl FnOnce() -> String) {
        self.mix(&at.0.to_le_bytes());
        self.mix(&[place]);
        self.mix(body.signature());
        let Some(lines) = &mut self.lines else { return };
        let packer = self.packer;
        let parent = parent_msg_id(packer, body).ok().flatten();
        let (described, msg_id) = match (Envelope::read(packer, body), parent) {
            (Ok(envelope), None) => {
                let text = format!("{} `{}`", envelope.msg_type, envelope.msg_id);
                (text, Some(envelope.msg_id))
            }
            (Ok(envelope), Some(parent)) => (format!("{} to `{parent}`", envelope.msg_type), Some(parent)),
            (Err(_), _) => ("what cannot be read".to_owned(), None),
        };
        lines.push(Line { at, text: format!("{}: {described}", what()), msg_id });
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_tells_runs_apart_whether_or_not_lines_are_recorded() {
        let digest = |record, times: &[u64]| {
            let mut log = Log::new(Packer::Json, record);
            times.iter().for_each(|at| log.note(Instant(*at), "something"));
            log.digest()
        };
        assert_eq!(digest(true, &[1, 2]), digest(false, &[1, 2]));
        assert_ne!(digest(false, &[1, 2]), digest(false, &[1, 3]));
    }
}
