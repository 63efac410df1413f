//! What the traffic of the broadcast scheduler says of each broadcast.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{Body, EngineId, EngineUuid, Envelope, Identity, Idents, MsgId, Session, Status};
use remuda_scheduler::broadcast::{BroadcastEffect, BroadcastEvent};
use serde_json::{Value, json};

use super::{Verdict, Violation};

/// A broadcast that came.
#[derive(Debug)]
struct Request {
    client: Identity,
    body: Body,
    /// Its metadata, without the targets.
    metadata: Value,
    /// In the order in which the client named them.
    targets: Vec<(EngineUuid, EngineId)>,
    /// The engines of `targets`.
    engines: BTreeSet<EngineUuid>,
    coalesces: bool,
    /// If it coalesces: what each target answered, `None` if it was not there when the request came.
    answers: BTreeMap<EngineUuid, Option<(Body, Status)>>,
    /// It waits for nobody any more: its one reply was sent, or an engine left that had not answered.
    closed: bool,
}

/// Something that has to follow from the event in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// A copy for this target.
    Copy { of: MsgId, uuid: EngineUuid, id: EngineId },
    /// An error for this message: its target is not there, or it makes no sense.
    Error { client: Identity, to: MsgId },
    /// The engine's reply, as it came.
    Relay { client: Identity, body: Body },
    /// One reply for all.
    Whole { of: MsgId },
}

/// What the traffic of the broadcast scheduler says of each broadcast.
#[derive(Debug)]
pub struct BroadcastBook {
    session: Session,
    /// The engines that it was told of.
    engines: BTreeSet<EngineUuid>,
    requests: BTreeMap<MsgId, Request>,
    /// What the event in hand calls for and was not done yet.
    due: VecDeque<Due>,
    /// What the hub has to be told because of the event in hand: the engine and the id of the copy, and whether it is the
    /// reply.
    to_tell: BTreeSet<(EngineUuid, MsgId, bool)>,
    /// Nothing is looked at any more: copies and replies wait for the disk, or the controller died.
    rests: bool,
    /// How many broadcasts were answered in one, and how many copies were answered one by one.
    answered: [u64; 2],
}

impl BroadcastBook {
    /// A book without entries.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            engines: BTreeSet::new(),
            requests: BTreeMap::new(),
            due: VecDeque::new(),
            to_tell: BTreeSet::new(),
            rests: false,
            answered: [0; 2],
        }
    }

    /// From now on nothing is looked at: what clients get is all there is to judge by.
    pub fn rest(&mut self) {
        self.rests = true;
        self.due.clear();
        self.to_tell.clear();
        self.requests.clear();
    }

    /// How many broadcasts had one reply for all.
    pub fn coalesced(&self) -> u64 {
        self.answered[0]
    }

    /// How many replies of single engines were passed on.
    pub fn relayed(&self) -> u64 {
        self.answered[1]
    }

    /// The broadcasts that still wait to be answered in one.
    pub fn open(&self) -> impl Iterator<Item = &MsgId> {
        self.requests.iter().filter(|(_, request)| request.coalesces && !request.closed).map(|(msg_id, _)| msg_id)
    }

    /// The scheduler is given an event.
    pub fn event(&mut self, event: &BroadcastEvent) {
        if self.rests {
            return;
        }
        self.due.clear();
        self.to_tell.clear();
        match event {
            BroadcastEvent::Recover(_) | BroadcastEvent::Committed { .. } => {}
            BroadcastEvent::Registered { uuid } => _ = self.engines.insert(uuid.clone()),
            BroadcastEvent::Unregistered { uuid } => {
                self.engines.remove(uuid);
                for request in self.requests.values_mut().filter(|request| request.coalesces && !request.closed) {
                    request.closed = request.engines.contains(uuid) && !request.answers.contains_key(uuid);
                }
            }
            BroadcastEvent::FromClient { client, body } => self.request(client, body),
            BroadcastEvent::FromEngine { engine, idents, body } => self.reply(engine, idents, body),
            // The simulated network has room for all.
            BroadcastEvent::Undelivered { .. } => {}
        }
    }

    fn request(&mut self, client: &Identity, body: &Body) {
        let packer = self.session.packer();
        if self.session.key().verify(body).is_err() {
            return;
        }
        let Ok(Envelope { msg_id, .. }) = Envelope::read(packer, body) else { return };
        if self.requests.contains_key(&msg_id) {
            return;
        }
        let mut metadata: Value = packer.unpack(body.metadata()).unwrap_or_default();
        let targets = serde_json::from_value::<Vec<(EngineUuid, EngineId)>>(metadata["targets"].clone());
        let targets = targets.unwrap_or_default();
        if targets.is_empty() {
            return self.due.push_back(Due::Error { client: client.clone(), to: msg_id });
        }
        let coalesces = metadata["is_coalescing"] == true;
        let mut answers = BTreeMap::new();
        for (uuid, id) in &targets {
            let (of, uuid) = (msg_id.clone(), uuid.clone());
            if self.engines.contains(&uuid) {
                self.to_tell.insert((uuid.clone(), copy_id(&of, &uuid), false));
                self.due.push_back(Due::Copy { of, uuid, id: *id });
            } else if coalesces {
                answers.insert(uuid, None);
            } else {
                self.due.push_back(Due::Error { client: client.clone(), to: copy_id(&of, &uuid) });
            }
        }
        if coalesces && answers.len() == targets.len() {
            self.due.push_back(Due::Whole { of: msg_id.clone() });
        }
        metadata["targets"] = Value::Null;
        let engines = targets.iter().map(|(uuid, _)| uuid.clone()).collect();
        let (client, body) = (client.clone(), body.clone());
        let request = Request { client, body, metadata, targets, engines, coalesces, answers, closed: false };
        self.requests.insert(msg_id, request);
    }

    fn reply(&mut self, engine: &Identity, idents: &Idents, body: &Body) {
        let packer = self.session.packer();
        if self.session.key().verify(body).is_err() {
            return;
        }
        let (Some(client), Some(uuid)) = (idents.first(), engine.to_engine()) else { return };
        let Ok(Some(parent)) = parent_msg_id(packer, body) else { return };
        let status = ReplyEnvelope::read(packer, body).ok().and_then(|reply| reply.status);
        if status.is_some() {
            self.to_tell.insert((uuid.clone(), parent, true));
        }
        let metadata: Value = packer.unpack(body.metadata()).unwrap_or_default();
        if metadata["is_coalescing"] != true {
            return self.due.push_back(Due::Relay { client: client.clone(), body: body.clone() });
        }
        let of = MsgId::from(metadata["original_msg_id"].as_str().unwrap_or_default());
        let Some(request) = self.requests.get_mut(&of).filter(|request| !request.closed) else { return };
        if !request.engines.contains(&uuid) || request.answers.contains_key(&uuid) {
            return;
        }
        request.answers.insert(uuid, Some((body.clone(), status.unwrap_or(Status::Error))));
        if request.answers.len() == request.targets.len() {
            self.due.push_back(Due::Whole { of });
        }
    }

    /// The scheduler asked for something.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn effect(&mut self, effect: &BroadcastEffect) -> Verdict {
        match effect {
            _ if self.rests => Ok(()),
            BroadcastEffect::Refused { .. } => Ok(()),
            BroadcastEffect::ToEngine { engine, client, body } => self.check_copy(engine, client, body),
            BroadcastEffect::ToClient { client, body } => self.check_reply(client, body),
            BroadcastEffect::Monitor(seen) => {
                let (told, engine) = match seen {
                    Monitor::Request { queue: Queue::Broadcast, engine: Some(engine), envelope, .. } => {
                        ((engine.clone(), envelope.msg_id.clone(), false), engine)
                    }
                    Monitor::Reply { queue: Queue::Broadcast, engine: Some(engine), msg_id, .. } => {
                        ((engine.clone(), msg_id.clone(), true), engine)
                    }
                    _ => return Err(wrong(None, format!("the hub is told what did not happen: {seen:?}"))),
                };
                if !self.to_tell.remove(&told) {
                    return Err(wrong(Some(&told.1), format!("the hub is told wrongly of `{engine}`: {seen:?}")));
                }
                Ok(())
            }
        }
    }

    /// All effects of an event were seen.
    ///
    /// # Errors
    /// What was left undone.
    pub fn after(&mut self) -> Verdict {
        if let Some(due) = self.due.front() {
            let msg_id = match due {
                Due::Copy { of, .. } | Due::Whole { of } => Some(of),
                Due::Error { to, .. } => Some(to),
                Due::Relay { .. } => None,
            };
            return Err(wrong(msg_id, format!("this was called for and not done: {due:?}")));
        }
        match self.to_tell.first() {
            Some((uuid, msg_id, _)) => Err(wrong(Some(msg_id), format!("the hub is not told of it on `{uuid}`"))),
            None => Ok(()),
        }
    }

    fn check_copy(&mut self, engine: &Identity, client: &Identity, body: &Body) -> Verdict {
        let packer = self.session.packer();
        let Ok(Envelope { msg_id, .. }) = Envelope::read(packer, body) else {
            return Err(wrong(None, format!("`{engine}` is sent what cannot be read")));
        };
        let found = self.due.iter().position(|due| {
            matches!(due, Due::Copy { of, uuid, .. } if copy_id(of, uuid) == msg_id && uuid.identity() == *engine)
        });
        let Some(Due::Copy { of, uuid, id }) = found.and_then(|at| self.due.remove(at)) else {
            return Err(wrong(Some(&msg_id), format!("`{engine}` is sent what is not for it, or a second time")));
        };
        if self.to_tell.contains(&(uuid.clone(), msg_id.clone(), false)) {
            return Err(wrong(Some(&msg_id), "it is sent before the hub was told".to_owned()));
        }
        let request = &self.requests[&of];
        if self.session.key().verify(body).is_err() {
            return Err(wrong(Some(&msg_id), format!("the copy for `{engine}` does not verify")));
        }
        let went: Value = packer.unpack(body.metadata()).unwrap_or_default();
        let mut expected = request.metadata.clone();
        expected["targets"] = json!([[uuid, id]]);
        expected["original_msg_id"] = json!(of);
        let same = body.content() == request.body.content() && body.buffers().eq(request.body.buffers());
        if went != expected || !same || *client != request.client {
            let reason = format!(
                "`{engine}` is sent {went} of {client} (content and buffers the same: {same}), not {expected} of {}",
                request.client
            );
            return Err(wrong(Some(&msg_id), reason));
        }
        Ok(())
    }

    fn check_reply(&mut self, client: &Identity, body: &Body) -> Verdict {
        let packer = self.session.packer();
        let Ok(Some(parent)) = parent_msg_id(packer, body) else {
            return Err(wrong(None, format!("{client} is sent what answers nothing: {body:?}")));
        };
        if self.session.key().verify(body).is_err() {
            return Err(wrong(Some(&parent), format!("{client} is sent a reply that does not verify")));
        }
        let relay = Due::Relay { client: client.clone(), body: body.clone() };
        if let Some(at) = self.due.iter().position(|due| *due == relay) {
            self.due.remove(at);
            self.answered[1] += 1;
            return Ok(());
        }
        let content: Value = packer.unpack(body.content()).unwrap_or_default();
        let error = Due::Error { client: client.clone(), to: parent.clone() };
        if content["status"] == "error"
            && let Some(at) = self.due.iter().position(|due| *due == error)
        {
            self.due.remove(at);
            return Ok(());
        }
        let metadata: Value = packer.unpack(body.metadata()).unwrap_or_default();
        let of = MsgId::from(metadata["original_msg_id"].as_str().unwrap_or_default());
        let Some(at) = self.due.iter().position(|due| *due == Due::Whole { of: of.clone() }) else {
            return Err(wrong(
                Some(&of),
                format!("{client} is sent a reply that is not due, to `{parent}`: {content}"),
            ));
        };
        self.due.remove(at);
        self.answered[0] += 1;
        self.check_whole(&of, client, body, &metadata, &content)
    }

    /// One reply for all: with what each target answered, in order, and an error if there was any.
    fn check_whole(
        &mut self,
        of: &MsgId,
        client: &Identity,
        body: &Body,
        metadata: &Value,
        content: &Value,
    ) -> Verdict {
        let request = self.requests.get_mut(of).expect("it is due");
        request.closed = true;
        let answers: Vec<_> = request.targets.iter().filter_map(|(uuid, _)| request.answers[uuid].as_ref()).collect();
        let all_well =
            answers.len() == request.targets.len() && answers.iter().all(|(_, status)| *status == Status::Ok);
        let buffers: Vec<&[u8]> = answers.iter().flat_map(|(body, _)| body.buffers()).collect();
        if request.client != *client {
            return Err(wrong(Some(of), format!("{client} is sent what answers {}", request.client)));
        }
        if body.buffers().collect::<Vec<_>>() != buffers {
            return Err(wrong(Some(of), "its reply does not hold what each target answered, in order".to_owned()));
        }
        if metadata["broadcast_targets"] != json!(request.targets) {
            return Err(wrong(Some(of), format!("its reply is said to be of {}", metadata["broadcast_targets"])));
        }
        if (content["status"] == "ok") != all_well {
            let reason = format!("all went well is {all_well}, and its reply says {}", content["status"]);
            return Err(wrong(Some(of), reason));
        }
        Ok(())
    }
}

/// The id of a target's copy.
pub(crate) fn copy_id(of: &MsgId, uuid: &EngineUuid) -> MsgId {
    MsgId::from(format!("{of}_{uuid}"))
}

fn wrong(msg_id: Option<&MsgId>, reason: String) -> Violation {
    match msg_id {
        Some(msg_id) => Violation::of("broadcast", msg_id, reason),
        None => Violation::new("broadcast", reason),
    }
}
