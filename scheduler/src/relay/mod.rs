//! The relays: messages between clients and the engines that they name, and the engines' output to everyone.

mod output;
#[cfg(test)]
mod tests;

pub use output::{OutputEffect, OutputEvent, OutputRelay};

use std::time::Duration;

use remuda_proto::message::content::AbortRequest;
use remuda_proto::message::native::Capability;
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Durability, Monitor, Queue, Ticket};
use remuda_proto::recovery::{Recovery, UndeliveredReply};
use remuda_proto::{
    Body, EngineId, EngineUuid, Envelope, Frames, Identity, Idents, Instant, Machine, Map, MsgId, MsgType, Now,
    Refusal, RemoteError, SeenSignatures, Session, Status,
};

use crate::owed::{Keep, Owed, Reply, Request};
use crate::probe::{self, hub_identity};
use crate::ticket::Withheld;

/// How long a relay waits for the engines of an earlier controller that owe replies, unless it is told otherwise.
pub const REATTACH: Duration = Duration::from_secs(60);

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
    /// What an earlier controller left, before anything else. Nothing is on record of the control channel.
    Recover(Box<Recovery>),
    /// The task scheduler has a request for an engine. Only on the control channel.
    Signal {
        /// The engine.
        engine: EngineUuid,
        /// The request.
        body: Body,
    },
    /// All reports up to this one are on disk. Only with [`Durability::Sync`], and never on the control channel.
    Committed {
        /// The last of them that had a ticket.
        ticket: Ticket,
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
        /// Whether those that run are to end.
        stop: bool,
    },
    /// An engine's nanny answered a [`RelayEvent::Signal`]. Only on the control channel.
    Signalled {
        /// The id of the request.
        msg_id: MsgId,
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
///
/// After the controller died, the direct relay of another one takes over what is on record ([`RelayEvent::Recover`]): an
/// engine that comes back is asked what it has, before it is sent anything, and what it does not have is answered with an
/// `EngineError`. So is what an engine had that does not come back in time.
#[derive(Debug)]
pub struct Relay {
    /// Which channel.
    channel: Channel,
    /// Verifies what passes, signs the errors.
    session: Session,
    /// The engines that are registered, by their identity.
    engines: Map<Identity, EngineUuid>,
    /// The signatures of requests that were relayed or answered.
    seen: SeenSignatures,
    /// Largest message relayed, in bytes.
    max_message_bytes: usize,
    /// What waits until a report is on disk. Empty on the control channel.
    withheld: Withheld<RelayEffect>,
    /// What engines of an earlier controller owe, until all of that is settled.
    owed: Option<Box<Owed>>,
    /// Whom replies to requests of an earlier controller are for, by request, with the engine that has it: that names the
    /// connection which the client had there. One goes with the reply, or with the engine.
    addressees: Map<MsgId, (EngineUuid, Identity)>,
    /// How long to wait for those that did not come back.
    reattach: Duration,
}

impl Relay {
    /// A relay that knows no engine yet.
    pub fn new(channel: Channel, session: Session) -> Self {
        let (engines, seen) = (Map::default(), SeenSignatures::default());
        Self {
            channel,
            session,
            engines,
            seen,
            max_message_bytes: usize::MAX,
            withheld: Withheld::new(Durability::None),
            owed: None,
            addressees: Map::default(),
            reattach: REATTACH,
        }
    }

    /// The same, with records that are to be relied on that far. Control requests never wait for the disk.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        let durability = if self.channel == Channel::Mux { durability } else { Durability::None };
        Self { withheld: Withheld::new(durability), ..self }
    }

    /// The same, with another time than [`REATTACH`] to wait for the engines of an earlier controller.
    #[must_use]
    pub fn with_reattach(self, reattach: Duration) -> Self {
        Self { reattach, ..self }
    }

    /// The same, but messages of more than `max_message_bytes` are not relayed: the client gets an error in their place.
    #[must_use]
    pub fn with_message_limit(self, max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..self }
    }

    /// The engines that are registered.
    pub fn engines(&self) -> impl Iterator<Item = &EngineUuid> {
        self.engines.values()
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
        if idents.is_empty() && self.channel == Channel::Mux && envelope.msg_type == MsgType::ResultRequest {
            // For no engine, but a question about the requests that came before it.
            out.push(RelayEffect::Monitor(Monitor::Asked { client: client.clone(), body }));
            return Ok(());
        }
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
        let Some(uuid) = self.engines.get(&engine).cloned() else {
            let evalue = format!("No Such Engine: `{engine}`; it may have left: choose one of the client's `ids`");
            self.answer(now, client, &envelope, &body, &RemoteError::new("IndexError", evalue), out);
            return Err(Refusal::UnknownEngine(engine));
        };
        let mut ticket = None;
        match self.channel {
            Channel::Mux if is_request(&envelope.msg_type) => {
                let body = body.clone();
                ticket = self.withheld.take();
                let (queue, engine, client) = (Queue::Mux, Some(uuid), Some(client.clone()));
                let told = Monitor::Request { queue, engine, client, envelope, body, ticket };
                out.push(RelayEffect::Monitor(told));
            }
            Channel::Control if envelope.msg_type == MsgType::AbortRequest => {
                // An engine is the judge of what it cannot read, and answers it.
                if let Ok(AbortRequest { msg_ids, remuda }) = self.session.packer().unpack(body.content())
                    && !msg_ids.is_empty()
                {
                    out.push(RelayEffect::Abort { msg_ids, stop: remuda.is_some_and(|options| options.stop) });
                }
            }
            Channel::Mux | Channel::Control => {}
        }
        self.send(now, ticket, RelayEffect::ToEngine { engine, idents, body }, out);
        Ok(())
    }

    /// Sends something once this report is on disk, and after all that waits already.
    fn send(&mut self, now: Now, ticket: Option<Ticket>, effect: RelayEffect, out: &mut Vec<RelayEffect>) {
        if let Some(effect) = self.withheld.hold(ticket, effect) {
            self.send_now(now, effect, out);
        }
    }

    /// Sends something, unless it is for an engine that is to answer first.
    fn send_now(&mut self, now: Now, effect: RelayEffect, out: &mut Vec<RelayEffect>) {
        let (Some(owed), RelayEffect::ToEngine { engine, idents, body }) = (&mut self.owed, &effect) else {
            return out.push(effect);
        };
        match owed.keep(engine, idents, body) {
            Keep::Kept => {}
            Keep::Send => out.push(effect),
            // It was read when it came.
            Keep::Full => _ = self.undelivered(now, engine, idents, body, out),
        }
    }

    /// All reports up to this one are on disk: what waited for them is done.
    fn committed(&mut self, now: Now, ticket: Ticket, out: &mut Vec<RelayEffect>) {
        self.withheld.commit(ticket);
        while let Some(effect) = self.withheld.pop() {
            self.send_now(now, effect, out);
        }
    }

    /// Asks an engine that came back, if it may owe something.
    fn ask(&mut self, now: Now, uuid: &EngineUuid, out: &mut Vec<RelayEffect>) {
        let question = self.owed.as_mut().and_then(|owed| owed.ask(&mut self.session, now, uuid));
        out.extend(question.map(|body| question_to(uuid.identity(), body)));
    }

    /// An engine sent something to an earlier controller's client, or the answer to what it was asked. Returns whether it
    /// was the latter.
    ///
    /// # Errors
    /// When it had sent that before.
    fn settle(
        &mut self,
        now: Now,
        engine: &Identity,
        body: &Body,
        out: &mut Vec<RelayEffect>,
    ) -> Result<bool, Refusal> {
        let Some(owed) = &mut self.owed else { return Ok(false) };
        let Ok(Some(parent)) = parent_msg_id(self.session.packer(), body) else { return Ok(false) };
        let settled = match owed.reply(&self.session, engine, &parent, body) {
            Reply::Other => return Ok(false),
            Reply::Repeated => return Err(Refusal::Unexpected(parent)),
            Reply::Settled(settled) => settled,
        };
        self.owed.take_if(|owed| owed.is_over());
        for request in settled.lost {
            self.lose(now, engine.to_engine(), &request, out);
        }
        for (idents, body) in settled.kept {
            out.push(RelayEffect::ToEngine { engine: engine.clone(), idents, body });
        }
        Ok(true)
    }

    /// A request was lost with an earlier controller.
    fn lose(&mut self, now: Now, engine: Option<EngineUuid>, request: &Request, out: &mut Vec<RelayEffect>) {
        self.addressees.swap_remove(&request.msg_id);
        let Ok(envelope) = Envelope::read(self.session.packer(), &request.body) else { return };
        let error = request.lost(engine.as_ref());
        self.fail(now, &request.client, engine, envelope, &request.body, &error, out);
    }

    /// Answers a request that goes nowhere. A message that asks nothing gets no answer: clients raise on replies that they
    /// do not know.
    fn answer(
        &mut self,
        now: Now,
        client: &Identity,
        envelope: &Envelope,
        request: &Body,
        error: &RemoteError,
        out: &mut Vec<RelayEffect>,
    ) {
        if let Some(body) = self.error(now, envelope, request, error) {
            self.send(now, None, RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body }, out);
        }
    }

    fn error(&mut self, now: Now, envelope: &Envelope, request: &Body, error: &RemoteError) -> Option<Body> {
        if !is_request(&envelope.msg_type) {
            return None;
        }
        let nothing = serde_json::Map::new();
        let reply = envelope.msg_type.reply();
        let reply = self.session.message(now.date, reply, Some(request.header()), &nothing, &error.content(), &[]);
        let (_, body) = reply.expect("an error is text, which every packer takes");
        Some(body)
    }

    /// Answers a request in the place of its engine, and tells the hub.
    #[allow(clippy::too_many_arguments, reason = "each is one of the things that a reply has")]
    fn fail(
        &mut self,
        now: Now,
        client: &Identity,
        engine: Option<EngineUuid>,
        envelope: Envelope,
        request: &Body,
        error: &RemoteError,
        out: &mut Vec<RelayEffect>,
    ) {
        let Some(body) = self.error(now, &envelope, request, error) else { return };
        let ticket = self.withheld.take();
        let reply = RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body: body.clone() };
        self.send(now, ticket, reply, out);
        if self.channel == Channel::Mux {
            let (queue, msg_id, status) = (Queue::Mux, envelope.msg_id, Status::Error);
            out.push(RelayEffect::Monitor(Monitor::Reply { queue, engine, msg_id, status, body, ticket }));
        }
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
        self.fail(now, client, engine.to_engine(), envelope, body, &unread(engine), out);
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
        let mut ticket = None;
        if let (Channel::Mux, Ok(Some(msg_id))) = (self.channel, parent_msg_id(self.session.packer(), body)) {
            ticket = self.withheld.take();
            let (queue, engine, body) = (Queue::Mux, engine.to_engine(), error.clone());
            let told = Monitor::Reply { queue, engine, msg_id, status: Status::Error, body, ticket };
            out.push(RelayEffect::Monitor(told));
        }
        self.send(
            now,
            ticket,
            RelayEffect::ToClient { client: client.clone(), idents: Idents::new(), body: error },
            out,
        );
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
        if self.settle(now, engine, &body, out)? {
            return Ok(());
        }
        let mut client = std::mem::replace(&mut idents[0], engine.clone());
        if client == hub_identity()
            && self.channel == Channel::Control
            && let Some(msg_id) = parent_msg_id(self.session.packer(), &body)?
        {
            out.push(RelayEffect::Signalled { msg_id });
            return Ok(());
        }
        if client == hub_identity() {
            // What it was asked by an earlier controller, or had answered before.
            return Err(Refusal::NoParent);
        }
        if let Some(addressee) = self.addressee(engine, &body) {
            client = addressee;
        }
        if let Err(refusal) = Refusal::check_size(&body, self.max_message_bytes) {
            self.too_large(now, (&client, engine), &body, &refusal, out);
            return Err(refusal);
        }
        let monitored = match self.channel {
            Channel::Mux => self.reply_record(engine, &body),
            Channel::Control => None,
        };
        let ticket = if let Some(Monitor::Reply { ticket, .. }) = &monitored { *ticket } else { None };
        self.send(now, ticket, RelayEffect::ToClient { client, idents, body }, out);
        out.extend(monitored.map(RelayEffect::Monitor));
        Ok(())
    }

    /// Whom a message of an engine is for, if that is about a request of an earlier controller. Told once, for a reply.
    fn addressee(&mut self, engine: &Identity, body: &Body) -> Option<Identity> {
        if self.addressees.is_empty() {
            return None;
        }
        let reply = crate::reply::read(self.session.packer(), body).ok()?;
        let msg_id = reply.parent?;
        let (_, client) = self.addressees.get(&msg_id).filter(|(uuid, _)| uuid.identity() == *engine)?;
        let client = client.clone();
        if reply.status.is_some() {
            self.addressees.swap_remove(&msg_id);
        }
        Some(client)
    }

    /// What the hub is told of a message from an engine, if it is a reply. What has no status anywhere (a `comm_msg`) is
    /// none.
    fn reply_record(&mut self, engine: &Identity, body: &Body) -> Option<Monitor> {
        let reply = crate::reply::read(self.session.packer(), body).ok()?;
        let (msg_id, status) = (reply.parent?, reply.status?);
        let engine = self.engines.get(engine).cloned().or_else(|| engine.to_engine());
        let (queue, body, ticket) = (Queue::Mux, body.clone(), self.withheld.take());
        Some(Monitor::Reply { queue, engine, msg_id, status, body, ticket })
    }
}

/// What an engine is asked.
fn question_to(engine: Identity, body: Body) -> RelayEffect {
    RelayEffect::ToEngine { engine, idents: Idents::from_iter([hub_identity()]), body }
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
            RelayEvent::Recover(mut recovery) => {
                if self.channel == Channel::Mux {
                    for UndeliveredReply { client, engine, body, .. } in std::mem::take(&mut recovery.replies) {
                        let idents = engine.into_iter().map(|uuid| uuid.identity()).collect();
                        // In other bytes than the first time: a stock client that sees a signature twice stops reading for a
                        // while.
                        let body = probe::again(&mut self.session, now.date, &body, None);
                        out.push(RelayEffect::ToClient { client, idents, body });
                    }
                    for task in &recovery.tasks {
                        if let (Some(uuid), Some(client)) = (&task.engine, &task.client) {
                            self.addressees.insert(task.msg_id.clone(), (uuid.clone(), client.clone()));
                        }
                    }
                    let owed = Owed::new(*recovery, Queue::Mux, now.instant + self.reattach);
                    self.owed = Some(Box::new(owed)).filter(|owed| !owed.is_over());
                }
                return;
            }
            RelayEvent::Signal { engine, body } => {
                // One that is not there has nothing left to end.
                if self.engines.contains_key(&engine.identity()) {
                    out.push(question_to(engine.identity(), body));
                }
                return;
            }
            RelayEvent::Committed { ticket } => return self.committed(now, ticket, out),
            RelayEvent::Registered { uuid, .. } => {
                self.ask(now, &uuid, out);
                self.engines.insert(uuid.identity(), uuid);
                return;
            }
            RelayEvent::Unregistered { uuid } => {
                self.engines.swap_remove(&uuid.identity());
                self.addressees.retain(|_, (engine, _)| *engine != uuid);
                self.owed.iter_mut().for_each(|owed| owed.gone(&uuid));
                self.owed.take_if(|owed| owed.is_over());
                return;
            }
        };
        if let Err(refusal) = done {
            out.push(RelayEffect::Refused { from, refusal });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.owed.as_ref()?.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<RelayEffect>) {
        let Some(owed) = &mut self.owed else { return };
        let questions = owed.ask_again(&mut self.session, now);
        out.extend(questions.into_iter().map(|(engine, body)| question_to(engine, body)));
        for (uuid, request) in owed.give_up(now) {
            self.lose(now, Some(uuid), &request, out);
        }
        self.owed.take_if(|owed| owed.is_over());
    }

    fn check(&self) {
        self.withheld.check();
        if let Some(owed) = &self.owed {
            owed.check();
            for (uuid, request) in owed.requests() {
                let addressee = self.addressees.get(&request.msg_id);
                assert_eq!(addressee, Some(&(uuid.clone(), request.client.clone())), "`{}`", request.msg_id);
            }
        }
        let is_empty = self.owed.is_none() && self.addressees.is_empty() && self.withheld.len() == 0;
        assert!(self.channel == Channel::Mux || is_empty);
    }
}
