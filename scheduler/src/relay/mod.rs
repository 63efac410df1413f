//! The relays: messages between clients and the engines that they name, and the engines' output to everyone.

mod output;
#[cfg(test)]
mod tests;

pub use output::{OutputEffect, OutputEvent, OutputRelay};

use remuda_proto::message::content::AbortRequest;
use remuda_proto::message::native::Capability;
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{
    Body, EngineId, EngineUuid, Envelope, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now, Refusal,
    RemoteError, SeenSignatures, Session, Set, Status,
};

/// Which channel a [`Relay`] serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The direct queue. The hub is told of its requests and replies.
    Mux,
    /// Control: abort, clear, shutdown, signal. Not recorded.
    Control,
}

/// All that can happen to a relay.
#[derive(Clone, Debug)]
pub enum RelayEvent {
    /// A client sent a message.
    FromClient {
        /// The client, as the socket of clients names it.
        client: Identity,
        /// Its message, not yet verified. The first of its routing frames, which may be missing, names the engine.
        frames: Frames,
    },
    /// An engine sent a message.
    FromEngine {
        /// The engine, as the socket of engines names it.
        engine: Identity,
        /// Its message, not yet verified. The first of its routing frames names the client.
        frames: Frames,
    },
    /// What was sent to an engine never reached it, since it does not read.
    Undelivered {
        /// The engine.
        engine: Identity,
        /// The client, then whatever else it routed by.
        idents: Idents,
        /// The message as it was sent.
        body: Body,
    },
    /// An engine is there.
    Registered {
        /// The engine.
        uuid: EngineUuid,
        /// The number by which people know it.
        id: EngineId,
        /// What it can run. A relay does not care: the client has chosen.
        capability: Capability,
    },
    /// An engine is gone.
    Unregistered {
        /// The engine.
        uuid: EngineUuid,
    },
}

/// All that a relay can ask for.
#[derive(Clone, Debug)]
pub enum RelayEffect {
    /// Send a message to an engine: `[engine][idents..]` and the body as it came.
    ToEngine {
        /// The engine.
        engine: Identity,
        /// The client, then whatever else the client routed by.
        idents: Idents,
        /// The message.
        body: Body,
    },
    /// Send a message to a client: `[client][idents..]` and the body.
    ToClient {
        /// The client.
        client: Identity,
        /// The engine, then whatever else the engine routed by; nothing if the relay itself answers.
        idents: Idents,
        /// The message.
        body: Body,
    },
    /// Tell the hub. Only on the direct queue.
    Monitor(Monitor),
    /// A client asks an engine not to run these requests. Only on the control channel, once for each request relayed; never
    /// empty. For the task scheduler, which may still have them.
    Abort {
        /// The requests.
        msg_ids: Vec<MsgId>,
    },
    /// A message had no effect, or an error reply for an answer: log and count it.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
}

/// Carries messages between clients and the engines that they name, unchanged (`pyzmq: monitored_queue`).
///
/// Stock relays look at nothing and drop what has no taker. This one verifies everything, refuses replayed requests, and
/// answers a request for an engine that is not there with an `IndexError`.
#[derive(Debug)]
pub struct Relay {
    /// Which channel.
    channel: Channel,
    /// Verifies what passes, signs the errors.
    session: Session,
    /// The engines that are registered.
    engines: Set<EngineUuid>,
    /// The signatures of requests that were relayed or answered.
    seen: SeenSignatures,
    /// Largest message relayed, in bytes.
    max_message_bytes: usize,
}

impl Relay {
    /// A relay that knows no engine yet.
    pub fn new(channel: Channel, session: Session) -> Self {
        let (engines, seen) = (Set::default(), SeenSignatures::default());
        Self { channel, session, engines, seen, max_message_bytes: usize::MAX }
    }

    /// The same, but messages of more than `max_message_bytes` are not relayed: the client gets an error in their place.
    #[must_use]
    pub fn with_message_limit(self, max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..self }
    }

    /// The engines that are registered.
    pub fn engines(&self) -> impl Iterator<Item = &EngineUuid> {
        self.engines.iter()
    }

    fn client_sent(
        &mut self,
        now: Now,
        client: &Identity,
        frames: Frames,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Refusal> {
        let Frames { mut idents, body } = frames;
        self.session.key().verify(&body)?;
        self.seen.check(&body)?;
        let envelope = Envelope::read(self.session.packer(), &body)?;
        if let Err(refusal) = Refusal::check_size(&body, self.max_message_bytes) {
            self.answer(now, client, &envelope, &body, &RemoteError::new("ValueError", refusal.to_string()), out);
            return Err(refusal);
        }
        if idents.is_empty() {
            let evalue = "the message names no engine: its first frame has to be the uuid of one";
            self.answer(now, client, &envelope, &body, &RemoteError::new("IndexError", evalue), out);
            return Err(Refusal::NoTarget);
        }
        let engine = std::mem::replace(&mut idents[0], client.clone());
        let known = std::str::from_utf8(engine.as_bytes()).ok().and_then(|uuid| self.engines.get(uuid)).cloned();
        let Some(uuid) = known else {
            let evalue = format!("No Such Engine: `{engine}`; it may have left: choose one of the client's `ids`");
            self.answer(now, client, &envelope, &body, &RemoteError::new("IndexError", evalue), out);
            return Err(Refusal::UnknownEngine(engine));
        };
        match self.channel {
            Channel::Mux if is_request(&envelope.msg_type) => {
                let body = body.clone();
                let (queue, engine, client) = (Queue::Mux, Some(uuid), Some(client.clone()));
                let told = Monitor::Request { queue, engine, client, envelope, body, ticket: None };
                out.push(RelayEffect::Monitor(told));
            }
            Channel::Control if envelope.msg_type == MsgType::AbortRequest => {
                // An engine is the judge of what it cannot read, and answers it.
                if let Ok(AbortRequest { msg_ids, .. }) = self.session.packer().unpack(body.content())
                    && !msg_ids.is_empty()
                {
                    out.push(RelayEffect::Abort { msg_ids });
                }
            }
            Channel::Mux | Channel::Control => {}
        }
        out.push(RelayEffect::ToEngine { engine, idents, body });
        Ok(())
    }

    /// Answers a request that goes nowhere, and returns the answer. A message that asks nothing gets none: clients raise on
    /// replies that they do not know.
    fn answer(
        &mut self,
        now: Now,
        client: &Identity,
        envelope: &Envelope,
        request: &Body,
        error: &RemoteError,
        out: &mut Vec<RelayEffect>,
    ) -> Option<Body> {
        if !is_request(&envelope.msg_type) {
            return None;
        }
        let nothing = serde_json::Map::new();
        let reply = envelope.msg_type.reply();
        let reply = self.session.message(now.date, reply, Some(request.header()), &nothing, &error.content(), &[]);
        let (_, body) = reply.expect("an error is text, which every packer takes");
        out.push(RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body: body.clone() });
        Some(body)
    }

    /// A request waits for an engine that does not read, and others wait for it already, up to the limit.
    fn undelivered(
        &mut self,
        now: Now,
        engine: &Identity,
        idents: &Idents,
        body: &Body,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Refusal> {
        let client = idents.first().ok_or(Refusal::NoTarget)?;
        let envelope = Envelope::read(self.session.packer(), body)?;
        let reply = self.answer(now, client, &envelope, body, &unread(engine), out);
        if let (Some(body), Channel::Mux) = (reply, self.channel) {
            let (queue, engine, msg_id) = (Queue::Mux, engine.to_engine(), envelope.msg_id);
            let told = Monitor::Reply { queue, engine, msg_id, status: Status::Error, body, ticket: None };
            out.push(RelayEffect::Monitor(told));
        }
        Ok(())
    }

    /// The reply of an engine is larger than is relayed.
    fn too_large(
        &mut self,
        now: Now,
        (client, engine): (&Identity, &Identity),
        body: &Body,
        refusal: &Refusal,
        out: &mut Vec<RelayEffect>,
    ) {
        let error = RemoteError::new("ValueError", refusal.to_string());
        let nothing = serde_json::Map::new();
        let Ok(envelope) = Envelope::read(self.session.packer(), body) else { return };
        let parent = Some(body.parent_header());
        let reply = self.session.message(now.date, envelope.msg_type, parent, &nothing, &error.content(), &[]);
        let (_, error) = reply.expect("an error is text, which every packer takes");
        if let (Channel::Mux, Ok(Some(msg_id))) = (self.channel, parent_msg_id(self.session.packer(), body)) {
            let (queue, engine, body) = (Queue::Mux, engine.to_engine(), error.clone());
            let told = Monitor::Reply { queue, engine, msg_id, status: Status::Error, body, ticket: None };
            out.push(RelayEffect::Monitor(told));
        }
        out.push(RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body: error });
    }

    fn engine_sent(
        &mut self,
        now: Now,
        engine: &Identity,
        frames: Frames,
        out: &mut Vec<RelayEffect>,
    ) -> Result<(), Refusal> {
        let Frames { mut idents, body } = frames;
        self.session.key().verify(&body)?;
        if idents.is_empty() {
            return Err(Refusal::NoTarget);
        }
        let client = std::mem::replace(&mut idents[0], engine.clone());
        if let Err(refusal) = Refusal::check_size(&body, self.max_message_bytes) {
            self.too_large(now, (&client, engine), &body, &refusal, out);
            return Err(refusal);
        }
        let monitored = match self.channel {
            Channel::Mux => self.reply_record(engine, &body),
            Channel::Control => None,
        };
        out.push(RelayEffect::ToClient { client, idents, body });
        out.extend(monitored.map(RelayEffect::Monitor));
        Ok(())
    }

    /// What the hub is told of a message from an engine, if it is a reply. What has no status anywhere (a `comm_msg`) is
    /// none.
    fn reply_record(&self, engine: &Identity, body: &Body) -> Option<Monitor> {
        let reply = crate::reply::read(self.session.packer(), body).ok()?;
        let (msg_id, status) = (reply.parent?, reply.status?);
        let engine = std::str::from_utf8(engine.as_bytes()).ok();
        let engine = engine.map(|uuid| self.engines.get(uuid).cloned().unwrap_or_else(|| EngineUuid::from(uuid)));
        Some(Monitor::Reply { queue: Queue::Mux, engine, msg_id, status, body: body.clone(), ticket: None })
    }
}

/// What a client is told in place of an engine that does not read what it is sent.
pub(crate) fn unread(engine: &Identity) -> RemoteError {
    let evalue = format!(
        "engine `{engine}` does not read what it is sent, and the controller's limit --max-unread-bytes is reached: it may be \
         stopped or hung"
    );
    RemoteError::new("RuntimeError", evalue)
}

/// Whether an answer is due.
fn is_request(msg_type: &MsgType) -> bool {
    msg_type.as_str().ends_with("_request")
}

impl Machine for Relay {
    type Event = RelayEvent;
    type Effect = RelayEffect;

    fn handle(&mut self, now: Now, event: RelayEvent, out: &mut Vec<RelayEffect>) {
        let (from, done) = match event {
            RelayEvent::FromClient { client, frames } => {
                let done = self.client_sent(now, &client, frames, out);
                (client, done)
            }
            RelayEvent::FromEngine { engine, frames } => {
                let done = self.engine_sent(now, &engine, frames, out);
                (engine, done)
            }
            RelayEvent::Undelivered { engine, idents, body } => {
                let done = self.undelivered(now, &engine, &idents, &body, out);
                (engine, done)
            }
            RelayEvent::Registered { uuid, .. } => {
                self.engines.insert(uuid);
                return;
            }
            RelayEvent::Unregistered { uuid } => {
                self.engines.swap_remove(&uuid);
                return;
            }
        };
        if let Err(refusal) = done {
            out.push(RelayEffect::Refused { from, refusal });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline(&mut self, _now: Now, _out: &mut Vec<RelayEffect>) {}
}
