//! The relays: messages between clients and the engines that they name, and the engines' output to everyone.

mod output;
#[cfg(test)]
mod tests;

pub use output::{OutputEffect, OutputEvent, OutputRelay};

use remuda_proto::message::content::AbortRequest;
use remuda_proto::message::native::Capability;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{
    Body, EngineId, EngineUuid, Envelope, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now, Refusal,
    RemoteError, SeenSignatures, Session, Set,
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
}

impl Relay {
    /// A relay that knows no engine yet.
    pub fn new(channel: Channel, session: Session) -> Self {
        Self { channel, session, engines: Set::default(), seen: SeenSignatures::default() }
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
        if idents.is_empty() {
            let evalue = "the message names no engine: its first frame has to be the uuid of one";
            self.answer(now, client, &envelope, &body, evalue, out);
            return Err(Refusal::NoTarget);
        }
        let engine = std::mem::replace(&mut idents[0], client.clone());
        let known = std::str::from_utf8(engine.as_bytes()).ok().and_then(|uuid| self.engines.get(uuid)).cloned();
        let Some(uuid) = known else {
            let evalue = format!("No Such Engine: `{engine}`; it may have left: choose one of the client's `ids`");
            self.answer(now, client, &envelope, &body, &evalue, out);
            return Err(Refusal::UnknownEngine(engine));
        };
        match self.channel {
            Channel::Mux if is_request(&envelope.msg_type) => {
                let body = body.clone();
                let engine = Some(uuid);
                out.push(RelayEffect::Monitor(Monitor::Request { queue: Queue::Mux, engine, envelope, body }));
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

    /// Answers a request that goes nowhere. A message that asks nothing gets no answer: clients raise on replies that
    /// they do not know.
    fn answer(
        &mut self,
        now: Now,
        client: &Identity,
        envelope: &Envelope,
        request: &Body,
        evalue: &str,
        out: &mut Vec<RelayEffect>,
    ) {
        if !is_request(&envelope.msg_type) {
            return;
        }
        let error = RemoteError::new("IndexError", evalue);
        let nothing = serde_json::Map::new();
        let reply = envelope.msg_type.reply();
        let reply = self.session.message(now.date, reply, Some(request.header()), &nothing, &error.content(), &[]);
        let (_, body) = reply.expect("an error is text, which every packer takes");
        out.push(RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body });
    }

    fn engine_sent(&self, engine: &Identity, frames: Frames, out: &mut Vec<RelayEffect>) -> Result<(), Refusal> {
        let Frames { mut idents, body } = frames;
        self.session.key().verify(&body)?;
        if idents.is_empty() {
            return Err(Refusal::NoTarget);
        }
        let client = std::mem::replace(&mut idents[0], engine.clone());
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
        Some(Monitor::Reply { queue: Queue::Mux, engine, msg_id, status, body: body.clone() })
    }
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
                let done = self.engine_sent(&engine, frames, out);
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
