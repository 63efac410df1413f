//! What happened: a digest always, and the lines when they are wanted.

use std::fmt;

use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, EngineUuid, Envelope, Identity, Instant, MsgId, Packer};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Instant,
    /// What.
    pub text: String,
    /// The requests that it is about.
    pub msg_ids: Vec<MsgId>,
    /// The engine that it is about.
    pub engine: Option<EngineUuid>,
    /// Whether it is about everybody.
    pub everybody: bool,
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
            lines.push(Line { at, text, msg_ids: Vec::new(), engine: None, everybody: false });
        }
    }

    fn last(&mut self) -> Option<&mut Line> {
        self.lines.as_mut()?.last_mut()
    }

    /// Notes that something happened to a request.
    pub fn about(&mut self, at: Instant, msg_id: &MsgId, what: impl fmt::Display) {
        self.note(at, what);
        if let Some(line) = self.last() {
            line.msg_ids = vec![msg_id.clone()];
        }
    }

    /// Notes that something happened to several requests.
    pub fn about_all(&mut self, at: Instant, msg_ids: &[MsgId], what: impl fmt::Display) {
        self.note(at, what);
        if let Some(line) = self.last() {
            line.msg_ids = msg_ids.to_vec();
        }
    }

    /// Notes that something happened to an engine.
    pub fn engine(&mut self, at: Instant, uuid: EngineUuid, what: impl fmt::Display) {
        self.note(at, what);
        if let Some(line) = self.last() {
            line.engine = Some(uuid);
        }
    }

    /// Notes that something happened that touches everybody.
    pub fn all(&mut self, at: Instant, what: impl fmt::Display) {
        self.note(at, what);
        if let Some(line) = self.last() {
            line.everybody = true;
        }
    }

    /// Notes that a message was sent to an engine.
    pub fn to_engine(&mut self, at: Instant, place: u8, body: &Body, engine: &Identity, who: &str) {
        self.message(at, place, body, || format!("{who} sends to `{engine}`"));
        if let Some(line) = self.last() {
            line.engine = engine.to_engine();
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
        let msg_ids = msg_id.into_iter().collect();
        lines.push(Line { at, text: format!("{}: {described}", what()), msg_ids, engine: None, everybody: false });
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The story of a request, from what happened in a run: all that it went through, in order, with what happened meanwhile to
/// the engines that it was sent to, and to everybody.
pub fn story<'a>(lines: &'a [Line], msg_id: &MsgId) -> Vec<&'a Line> {
    let is_about = |line: &Line| line.msg_ids.contains(msg_id);
    let (Some(first), Some(last)) = (lines.iter().position(is_about), lines.iter().rposition(is_about)) else {
        return Vec::new();
    };
    let mut engines = Vec::new();
    let mut story = Vec::new();
    for line in &lines[first..=last] {
        let touches = line.everybody || line.engine.as_ref().is_some_and(|engine| engines.contains(&engine));
        if is_about(line) {
            engines.extend(&line.engine);
            story.push(line);
        } else if touches && line.msg_ids.is_empty() {
            story.push(line);
        }
    }
    story
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

    #[test]
    fn a_story_has_what_a_request_went_through_and_what_happened_to_its_engine_meanwhile() {
        let mut log = Log::new(Packer::Json, true);
        let (one, other) = (MsgId::from("one"), MsgId::from("other"));
        let [near, far] = ["near", "far"].map(EngineUuid::from);
        log.engine(Instant(1), near.clone(), "before its time");
        log.about(Instant(2), &one, "it comes");
        log.engine(Instant(3), near.clone(), "not its engine yet");
        log.about(Instant(4), &one, "it is sent to near");
        log.last().unwrap().engine = Some(near.clone());
        log.about(Instant(5), &other, "somebody else's");
        log.engine(Instant(6), far, "another engine");
        log.engine(Instant(7), near.clone(), "near is killed");
        log.all(Instant(8), "the controller stands still");
        log.about_all(Instant(9), &[other, one.clone()], "it ends");
        log.engine(Instant(10), near, "after its time");
        let lines = log.take_lines();
        let told: Vec<_> = story(&lines, &one).iter().map(|line| &*line.text).collect();
        assert_eq!(
            told,
            ["it comes", "it is sent to near", "near is killed", "the controller stands still", "it ends"]
        );
    }
}
