//! What clients sent, and what they got for it.

use std::collections::{BTreeMap, BTreeSet};

use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, EngineUuid, MsgId, Session};
use serde_json::Value;

use super::{Verdict, Violation};
use crate::journal::Journal;
use crate::network::Channel;

/// What a client may expect for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One reply.
    One,
    /// One reply, unless one of these engines goes; then one or none.
    FromEngines(Vec<EngineUuid>),
    /// One reply at most.
    Perhaps,
    /// Nothing.
    None,
}

impl Answer {
    /// Whether a reply has to come.
    fn is_due(&self) -> bool {
        matches!(self, Self::One | Self::FromEngines(_))
    }
}

/// A message that a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who sent it.
    pub client: u32,
    /// On which channel.
    pub channel: Channel,
    /// What may be expected.
    pub answer: Answer,
    /// What came.
    pub reply: Option<Body>,
    /// Whether it answers for several engines at once.
    is_whole: bool,
    /// How many replies may come beside the one: each time that a controller died, the record of one may have been lost.
    spare: u32,
}

/// What clients sent, and what they got for it.
#[derive(Debug)]
pub struct ClientBook {
    session: Session,
    sent: BTreeMap<MsgId, Sent>,
    /// How many of `sent` wait for a reply that has to come.
    waiting: usize,
    /// Which of `sent` may have to be answered by an engine.
    by_engine: BTreeMap<EngineUuid, BTreeSet<MsgId>>,
}

impl ClientBook {
    /// A book without entries.
    pub fn new(session: Session) -> Self {
        Self { session, sent: BTreeMap::new(), waiting: 0, by_engine: BTreeMap::new() }
    }

    /// A client sends something under an id that is new.
    pub fn send(&mut self, client: u32, channel: Channel, msg_id: MsgId, answer: Answer) {
        self.waiting += usize::from(answer.is_due());
        if let Answer::FromEngines(engines) = &answer {
            for uuid in engines {
                self.by_engine.entry(uuid.clone()).or_default().insert(msg_id.clone());
            }
        }
        let before = self.sent.insert(msg_id, Sent { client, channel, answer, reply: None, is_whole: false, spare: 0 });
        assert!(before.is_none(), "client {client} uses an id twice: {before:?}");
    }

    /// Whether a client sent this, whatever became of it.
    pub fn is_sent(&self, msg_id: &MsgId) -> bool {
        self.sent.contains_key(msg_id)
    }

    /// A client gets something on a channel that brings replies.
    pub fn receive(&mut self, client: u32, channel: Channel, body: &Body) -> Result<MsgId, Violation> {
        if let Err(error) = self.session.key().verify(body) {
            return Err(Violation::new("client", format!("client {client} got what does not verify: {error}")));
        }
        let Ok(Some(parent)) = parent_msg_id(self.session.packer(), body) else {
            return Err(Violation::new("client", format!("client {client} got what answers nothing: {body:?}")));
        };
        let is_whole = channel == Channel::Broadcast && !self.sent.contains_key(&parent);
        let msg_id = if is_whole { self.original(body).unwrap_or(parent) } else { parent };
        let Some(sent) = self.sent.get_mut(&msg_id) else {
            return Err(Violation::of("client", &msg_id, format!("client {client} got a reply to what nobody sent")));
        };
        if (sent.client, sent.channel) != (client, channel) {
            let reason =
                format!("client {client} got on {channel:?} what client {} sent on {:?}", sent.client, sent.channel);
            return Err(Violation::of("client", &msg_id, reason));
        }
        if sent.answer == Answer::None {
            return Err(Violation::of("client", &msg_id, format!("client {client} got an answer where none is due")));
        }
        let is_spare = sent.reply.is_some() && sent.spare > 0;
        sent.spare -= u32::from(is_spare);
        if sent.reply.is_some() && !is_spare {
            return Err(Violation::of("client", &msg_id, format!("client {client} got two replies")));
        }
        // Engines send back the id of what they ran, so that a result that belongs to another task shows.
        let is_result = matches!(channel, Channel::Task | Channel::Mux | Channel::Broadcast) && !is_whole;
        let ran = body.buffers().next().filter(|_| is_result).and_then(|buffer| std::str::from_utf8(buffer).ok());
        if ran.is_some_and(|ran| ran.starts_with("ran ") && ran != format!("ran {msg_id}")) {
            return Err(Violation::of(
                "client",
                &msg_id,
                format!("client {client} got the result of another task: {ran:?}"),
            ));
        }
        let is_first = sent.reply.replace(body.clone()).is_none();
        sent.is_whole = is_whole;
        self.waiting -= usize::from(is_first && sent.answer.is_due());
        Ok(msg_id)
    }

    /// The broadcast whose copies a message answers in one.
    fn original(&self, body: &Body) -> Option<MsgId> {
        let metadata: Value = self.session.packer().unpack(body.metadata()).ok()?;
        let original = metadata["original_msg_id"].as_str().filter(|_| metadata["is_coalescing"] == true)?;
        Some(MsgId::from(original))
    }

    /// An engine is gone: what it was asked may stay without an answer.
    pub fn engine_gone(&mut self, uuid: &EngineUuid) {
        for msg_id in self.by_engine.remove(uuid).unwrap_or_default() {
            self.release(&msg_id);
        }
    }

    /// A client is gone, or its connections broke: what it asked may stay without an answer.
    pub fn client_gone(&mut self, client: u32) {
        let its = self.sent.iter().filter(|(_, sent)| sent.client == client && sent.reply.is_none());
        let ids: Vec<_> = its.map(|(msg_id, _)| msg_id.clone()).collect();
        ids.iter().for_each(|msg_id| self.release(msg_id));
    }

    /// The controller died. Requests on disk without a reply there will be answered: once more, if the reply to one was lost
    /// from the records only, which `may_lose` allows. All else may stay without an answer.
    pub(crate) fn controller_died(&mut self, journal: &Journal, may_lose: bool) {
        let mut released = Vec::new();
        for (msg_id, sent) in &mut self.sent {
            let is_open = journal.has(msg_id) && !journal.has_reply(msg_id);
            // What is not on record at all may have been answered, and may be sent again, byte for byte; and one reply for
            // many may have been sent while the record of one of them was not there yet.
            let is_unknown = matches!(sent.channel, Channel::Task | Channel::Broadcast) && !journal.has(msg_id);
            sent.spare += u32::from(may_lose && (is_open || is_unknown));
            if !is_open && sent.reply.is_none() {
                released.push(msg_id.clone());
            }
        }
        released.iter().for_each(|msg_id| self.release(msg_id));
    }

    fn release(&mut self, msg_id: &MsgId) {
        let sent = self.sent.get_mut(msg_id).expect("it is listed because it was sent");
        if sent.answer.is_due() {
            self.waiting -= usize::from(sent.reply.is_none());
            sent.answer = Answer::Perhaps;
        }
    }

    /// How many replies have to come.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The messages that wait for a reply that has to come.
    pub fn unanswered(&self) -> Vec<MsgId> {
        let due = self.sent.iter().filter(|(_, sent)| sent.reply.is_none() && sent.answer.is_due());
        due.map(|(msg_id, _)| msg_id.clone()).collect()
    }

    /// The direct requests and single broadcasts that engines answered which never went.
    pub fn answered_by_engines(&self) -> impl Iterator<Item = &MsgId> {
        let by_engine = self.sent.iter().filter(|(_, sent)| {
            let is_direct = matches!(sent.channel, Channel::Mux | Channel::Broadcast);
            is_direct && sent.reply.is_some() && matches!(sent.answer, Answer::FromEngines(_))
        });
        by_engine.filter(|(_, sent)| !sent.is_whole).map(|(msg_id, _)| msg_id)
    }

    /// All that was sent on a channel.
    pub fn on(&self, channel: Channel) -> impl Iterator<Item = (&MsgId, &Sent)> {
        self.sent.iter().filter(move |(_, sent)| sent.channel == channel)
    }

    /// What came for a message, if anything did.
    pub fn reply(&self, msg_id: &MsgId) -> Option<&Body> {
        self.sent.get(msg_id)?.reply.as_ref()
    }

    /// Everything that has to be answered was.
    pub fn check_settled(&self) -> Verdict {
        let msg_ids = self.unanswered();
        if msg_ids.is_empty() {
            return Ok(());
        }
        Err(Violation { checker: "settled", reason: format!("{} messages have no reply", msg_ids.len()), msg_ids })
    }
}
