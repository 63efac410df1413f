//! The machine of a client: what it asked for, and who answers.

mod broadcast;
mod engines;
mod event;
mod output;
mod recheck;
mod resend;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::EngineNotification;
use remuda_proto::message::metadata::{ReplyEnvelope, replying_engine};
use remuda_proto::message::needs::Extras;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{
    Body, Date, EngineId, EngineUuid, Envelope, Frames, Instant, Machine, Map, MsgId, MsgType, Now, Packer, Refusal,
    SeenSignatures, Session, Status,
};
use serde::Serialize;
use serde_json::{Value, json};

use self::broadcast::Open;
pub use self::broadcast::{Broadcast, part_id};
pub use self::engines::Engine;
use self::engines::Engines;
pub use self::event::{Channel, Effect, Event, Lost, Outcome, Raw, Reply, Route, Work};
use self::output::Collecting;
pub use self::output::{Piece, PieceKind};
#[cfg(feature = "io")]
pub(crate) use self::recheck::reply_on_record;
use self::recheck::{Own, Recheck};
pub use self::resend::RESEND_LIMIT_BYTES;
use self::resend::Resend;

/// How long after a task's reply its output is waited for. The reply and the output travel on different sockets, so the
/// end of the output may come later; a message that was lost must not keep anyone waiting for it longer than this.
pub const OUTPUT_WAIT: Duration = Duration::from_secs(5);
/// Most bytes of output that are kept of one task; what goes beyond is dropped and counted.
pub const OUTPUT_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// When the list of engines is asked for again after connecting: an engine that came between the controller's first
/// reply and our subscription to its notifications is seen then (wire reference, 9.1).
const FIRST_REFRESH: Duration = Duration::from_secs(1);
/// How often the list is asked for after that. It also tells whether the controller still answers.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// A request that has no outcome yet.
#[derive(Debug)]
struct Request {
    /// Where its reply comes from.
    channel: Channel,
    /// The engine it was sent to by name; then `engines` lists it there. Never set for queries and balanced tasks.
    engine: Option<EngineUuid>,
    /// The broadcast that it is a part of; then `broadcasts` lists it there.
    broadcast: Option<MsgId>,
    /// Whether the reply is the list of engines.
    lists_engines: bool,
    /// When it was sent.
    sent: Instant,
    /// When it is given up; then `timers` has it. Never set for tasks.
    expires: Option<Instant>,
}

/// What the application waits for, and how the controller's and the engines' messages bear on it.
///
/// Every request is resolved at most once, and exactly once if its reply comes, its engine leaves, its time is up or the
/// controller shuts down.
pub struct Outstanding {
    /// Makes, signs and verifies messages. Its own ids never equal those of the application (see [`Names`]).
    session: Session,
    /// Signatures that came before on any socket.
    seen: SeenSignatures,
    /// Requests without an outcome, by id.
    requests: Map<MsgId, Request>,
    /// Broadcasts of which some part has no outcome.
    broadcasts: Map<MsgId, Open>,
    /// Output of tasks that has not ended: of all tasks in `requests`, and of those whose reply overtook it.
    outputs: Map<MsgId, Collecting>,
    /// Each request's `expires` and each output's `ends`, and no more.
    timers: BTreeSet<(Instant, MsgId)>,
    /// The engines that are registered, and for each the requests sent to it by name.
    engines: Engines,
    /// When the list of engines is asked for again; `None` until it was received once, and while it is being asked for.
    refresh: Option<Instant>,
    /// The requests of our own. In `requests`, and never resolved outside.
    own: Map<MsgId, Own>,
    /// What is to be asked because another controller answers than before.
    recheck: Recheck,
    /// What may have been lost on its way to a controller that died, and is then sent again.
    resend: Resend,
    /// Whether the last request of our own was answered, as last said.
    answering: bool,
    /// Most bytes of output kept of one task.
    output_limit_bytes: usize,
    /// How many messages were refused, by kind.
    refused: Map<&'static str, u64>,
}

/// Names the application's requests, so that an id is known as soon as a task is submitted.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// For the requests of this session. A letter before the number keeps them apart from the session's own.
    pub fn new(session: &Session, pid: u32) -> Self {
        Self { prefix: format!("{}_{pid}_t", session.id()) }
    }

    /// The id of request `number`.
    pub fn msg_id(&self, number: u64) -> MsgId {
        MsgId::from(format!("{}{number}", self.prefix))
    }
}

/// What a reply comes to.
pub(crate) fn outcome(
    packer: Packer,
    received: Date,
    body: &Body,
    id_of: impl FnOnce(&EngineUuid) -> Option<EngineId>,
) -> Outcome {
    let said = ReplyEnvelope::read(packer, body).and_then(|said| Ok((said.status, replying_engine(packer, body)?)));
    match said {
        Ok((Some(status), engine)) => {
            let engine_id = engine.as_ref().and_then(id_of);
            Outcome::Reply(Reply { status, engine, engine_id, received, body: body.clone() })
        }
        Ok(_) => Outcome::Unreadable { reason: "it has no status".to_owned() },
        Err(error) => Outcome::Unreadable { reason: error.to_string() },
    }
}

#[derive(Serialize)]
struct DirectMetadata<'a> {
    label: &'a Option<Value>,
    #[serde(rename = "remuda", skip_serializing_if = "Extras::is_empty")]
    extras: Extras,
}

impl Outstanding {
    /// A client that has asked for nothing. `output_limit_bytes` is the most that is kept of a task's output, commonly
    /// [`OUTPUT_LIMIT_BYTES`].
    pub fn new(session: Session, output_limit_bytes: usize) -> Self {
        Self {
            session,
            seen: SeenSignatures::default(),
            requests: Map::default(),
            broadcasts: Map::default(),
            outputs: Map::default(),
            timers: BTreeSet::new(),
            engines: Engines::default(),
            refresh: None,
            own: Map::default(),
            recheck: Recheck::default(),
            resend: Resend::new(RESEND_LIMIT_BYTES),
            answering: true,
            output_limit_bytes,
            refused: Map::default(),
        }
    }

    /// The same, but of tasks without a reply no more than `bytes` are kept to be sent again, in the place of
    /// [`RESEND_LIMIT_BYTES`].
    #[must_use]
    pub fn with_resend_limit(self, bytes: usize) -> Self {
        Self { resend: Resend::new(bytes), ..self }
    }

    /// How many requests of the application have no outcome.
    pub fn len(&self) -> usize {
        self.requests.len() - self.own.len()
    }

    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages were refused, by [`Refusal::kind`].
    pub fn refused(&self) -> &Map<&'static str, u64> {
        &self.refused
    }

    fn submit(&mut self, now: Now, msg_id: MsgId, route: &Route, work: &Work, out: &mut Vec<Effect>) {
        self.assert_new(&msg_id);
        let (channel, engine) = match route {
            Route::Direct { engine, .. } => (Channel::Mux, Some(engine.clone())),
            Route::Balanced(_) => (Channel::Task, None),
        };
        if !route.is_quiet() {
            self.outputs.insert(msg_id.clone(), Collecting::default());
        }
        let metadata = match route {
            Route::Direct { label, run_timeout, .. } => {
                let mut extras = Extras::default();
                extras.set_run_timeout(*run_timeout);
                self.pack(&DirectMetadata { label, extras })
            }
            Route::Balanced(metadata) => self.pack(metadata),
        };
        let (content, buffers) = self.pack_work(work);
        let parts = Parts { msg_type: work.msg_type(), metadata: &metadata, content: &content, buffers };
        self.send(now, msg_id, channel, engine, None, &parts, out);
    }

    /// Sends a request and writes it down; or resolves it at once if its engine is not there.
    #[allow(clippy::too_many_arguments, reason = "each is one part of a request, and all callers are here")]
    fn send(
        &mut self,
        now: Now,
        msg_id: MsgId,
        channel: Channel,
        engine: Option<EngineUuid>,
        timeout: Option<Duration>,
        parts: &Parts<'_>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(uuid) = &engine
            && !self.engines.assign(uuid, &msg_id)
        {
            // The controller would drop it without a word, and nobody would ever answer.
            let lost = Engine { id: None, uuid: uuid.clone() };
            self.resolve(msg_id, Outcome::EngineLost(lost), now, out);
            return;
        }
        let frames = self.sign(now, &msg_id, engine.as_ref(), parts);
        let expires = timeout.map(|timeout| now.instant + timeout);
        if let Some(at) = expires {
            self.timers.insert((at, msg_id.clone()));
        }
        let lists_engines = parts.msg_type == MsgType::ConnectionRequest;
        let (broadcast, sent) = (None, now.instant);
        let request = Request { channel, engine, broadcast, lists_engines, sent, expires };
        self.requests.insert(msg_id.clone(), request);
        out.push(Effect::Send { channel, frames: frames.clone() });
        self.sent(now, msg_id, channel, frames, out);
    }

    /// A request as it is sent: to an engine by name, or wherever its socket leads.
    fn sign(&self, now: Now, msg_id: &MsgId, engine: Option<&EngineUuid>, parts: &Parts<'_>) -> Frames {
        let header = self.session.header_of(msg_id.clone(), now.date, parts.msg_type.clone());
        let header = self.pack(&header);
        let parent = self.session.packer().empty_map();
        let body =
            self.session.sign_parts([&header, parent, parts.metadata, parts.content], parts.buffers.iter().cloned());
        Frames::new(engine.map(EngineUuid::identity), body)
    }

    fn raw(&mut self, now: Now, msg_id: MsgId, raw: &Raw, out: &mut Vec<Effect>) {
        let Raw { channel, engine, parts: engines, coalesce, msg_type, metadata, content, buffers, is_answered } = raw;
        let parts = Parts { msg_type: msg_type.clone(), metadata, content, buffers };
        if !is_answered {
            let frames = self.sign(now, &msg_id, engine.as_ref(), &parts);
            out.push(Effect::Send { channel: *channel, frames });
        } else if engines.is_empty() {
            self.assert_new(&msg_id);
            if channel.has_tasks() {
                self.outputs.insert(msg_id.clone(), Collecting::raw());
            }
            self.send(now, msg_id, *channel, engine.clone(), None, &parts, out);
        } else {
            let open = self.begin_broadcast(now, &msg_id, engines, *coalesce, true, out);
            self.send_broadcast(now, msg_id, open, &parts, out);
        }
    }

    fn pack_work<'a>(&self, work: &'a Work) -> (Vec<u8>, &'a [Bytes]) {
        match work {
            Work::Apply { content, buffers } => (self.pack(content), buffers),
            Work::Execute(content) => (self.pack(content), &[]),
        }
    }

    fn pack(&self, part: &(impl Serialize + ?Sized)) -> Vec<u8> {
        // Maps here have text keys, and numbers are those of JSON: both packers can write all of them.
        self.session
            .packer()
            .pack(part)
            .unwrap_or_else(|error| panic!("a part of a request has no packed form: {error}"))
    }

    fn query(
        &mut self,
        now: Now,
        msg_id: MsgId,
        msg_type: MsgType,
        content: &Value,
        timeout: Option<Duration>,
        out: &mut Vec<Effect>,
    ) {
        let (metadata, content) = (self.session.packer().empty_map(), self.pack(content));
        let parts = Parts { msg_type, metadata, content: &content, buffers: &[] };
        self.send(now, msg_id, Channel::Query, None, timeout, &parts, out);
    }

    fn receive(&mut self, now: Now, channel: Channel, frames: &Frames, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let body = &frames.body;
        match channel {
            Channel::Iopub => {
                // Everybody's output comes in. Most of a busy cluster's is somebody else's: the look at the parent
                // comes first, since it is much cheaper than the signature.
                match output::parent_task(&self.session, body)? {
                    Some(task) => self.output(now, &task, body, out),
                    None => Ok(()),
                }
            }
            Channel::Notification => {
                self.verify(body)?;
                self.notification(now, body, out)
            }
            Channel::Query | Channel::Mux | Channel::Task | Channel::Broadcast | Channel::Control => {
                self.verify(body)?;
                self.reply(now, channel, body, out)
            }
        }
    }

    fn verify(&mut self, body: &Body) -> Result<(), Refusal> {
        self.session.key().verify(body)?;
        Ok(self.seen.check(body)?)
    }

    fn reply(&mut self, now: Now, channel: Channel, body: &Body, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let packer = self.session.packer();
        let parent = parent_msg_id(packer, body)?.ok_or(Refusal::NoParent)?;
        if channel == Channel::Broadcast {
            return self.broadcast_reply(now, parent, body, out);
        }
        let Some(request) = self.requests.get(&parent).filter(|request| request.channel == channel) else {
            return Err(Refusal::Unexpected(parent));
        };
        // Types of other replies are not looked at, as upstream does not: that to a signal_request is misspelt.
        if channel.has_tasks() {
            self.check_task_reply(body)?;
        }
        let (lists_engines, sent) = (request.lists_engines, request.sent);
        let mut outcome = self.outcome(now, body);
        if lists_engines
            && matches!(&outcome, Outcome::Reply(reply) if reply.status == Status::Ok)
            && let Err(refusal) = self.renew_engines(now, sent, &parent, body, out)
        {
            outcome = Outcome::Unreadable { reason: refusal.to_string() };
        }
        self.resolve(parent, outcome, now, out);
        Ok(())
    }

    /// Whether a message is of a type that answers tasks.
    fn check_task_reply(&self, body: &Body) -> Result<(), Refusal> {
        match Envelope::read(self.session.packer(), body)?.msg_type {
            MsgType::ApplyReply | MsgType::ExecuteReply => Ok(()),
            other => Err(Refusal::UnexpectedType(other)),
        }
    }

    /// What a reply comes to.
    fn outcome(&self, now: Now, body: &Body) -> Outcome {
        outcome(self.session.packer(), now.date, body, |uuid| self.engines.id(uuid))
    }

    /// Takes over the list of a `connection_reply`, whose request `parent` was sent at `sent`.
    fn renew_engines(
        &mut self,
        now: Now,
        sent: Instant,
        parent: &MsgId,
        body: &Body,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let listed = engines::read_list(self.session.packer(), body)?;
        for gone in self.engines.unlisted(&listed, sent) {
            self.engine_left(now, &gone, out);
        }
        for (id, uuid) in listed {
            self.engine_joined(now, id, uuid, out);
        }
        // While a request of our own is under way, its end says when the next is due.
        if !self.is_refreshing() {
            let wait = if self.refresh.is_none() { FIRST_REFRESH } else { REFRESH_EVERY };
            self.refresh = Some(now.instant + wait);
        }
        self.recheck(now, parent, body, out);
        Ok(())
    }

    /// Notes an engine. Whoever had its id, or its uuid under another id, has left without our hearing of it.
    fn engine_joined(&mut self, now: Now, id: EngineId, uuid: EngineUuid, out: &mut Vec<Effect>) {
        if self.engines.id(&uuid) == Some(id) {
            self.engines.heard(&uuid, now.instant);
            return;
        }
        let same_id = self.engines.by_id(id).cloned();
        for gone in same_id.iter().chain([&uuid]) {
            self.engine_left(now, gone, out);
        }
        self.engines.join(id, &uuid, now.instant);
        out.push(Effect::EngineJoined(Engine { id: Some(id), uuid }));
    }

    fn notification(&mut self, now: Now, body: &Body, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let packer = self.session.packer();
        match Envelope::read(packer, body)?.msg_type {
            MsgType::RegistrationNotification => {
                let EngineNotification { id, uuid } = packer.unpack(body.content())?;
                self.engine_joined(now, id, uuid, out);
            }
            MsgType::UnregistrationNotification => {
                let EngineNotification { uuid, .. } = packer.unpack(body.content())?;
                self.engine_left(now, &uuid, out);
            }
            MsgType::ShutdownNotification => {
                self.recheck.clear();
                self.resend.clear();
                for msg_id in self.requests.keys().cloned().collect::<Vec<_>>() {
                    self.resolve(msg_id, Outcome::Shutdown, now, out);
                }
                out.push(Effect::Shutdown);
            }
            other => return Err(Refusal::UnexpectedType(other)),
        }
        Ok(())
    }

    /// Forgets an engine, and fails what was sent to it by name: nobody else would (wire reference, 9.4).
    fn engine_left(&mut self, now: Now, uuid: &EngineUuid, out: &mut Vec<Effect>) {
        let Some((engine, requests)) = self.engines.leave(uuid) else { return };
        // First, so that whoever learns that a task was lost no longer finds its engine.
        out.push(Effect::EngineLeft(engine.clone()));
        for msg_id in self.with_coalesced(requests) {
            self.resolve(msg_id, Outcome::EngineLost(engine.clone()), now, out);
        }
    }

    /// Ends a request, if it has not ended.
    fn resolve(&mut self, msg_id: MsgId, outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
        let request = self.requests.swap_remove(&msg_id);
        if let Some(request) = &request {
            if let Some(original) = &request.broadcast {
                self.end_part(original, &msg_id);
            }
            if let Some(uuid) = &request.engine {
                self.engines.unassign(uuid, &msg_id);
            }
            if let Some(at) = request.expires {
                self.timers.remove(&(at, msg_id.clone()));
            }
            self.resend.forget(&msg_id);
        }
        match self.own.swap_remove(&msg_id) {
            None => {}
            Some(Own::Engines) => return self.refreshed(now, &outcome, out),
            Some(Own::Status(asked)) => return self.status_told(now, asked, &outcome, out),
            Some(Own::Behind { channel, tasks }) => return self.behind_told(now, channel, tasks, &outcome, out),
            Some(Own::Result(task)) => return self.result_told(now, task, &outcome, out),
        }
        let engine = request.and_then(|request| request.engine);
        let ended = self.outputs.get_mut(&msg_id).map(|collecting| collecting.replied(&self.session, &outcome, engine));
        out.push(Effect::Resolve { msg_id: msg_id.clone(), outcome });
        match ended {
            Some(true) => self.end_output(&msg_id, true, out),
            Some(false) => {
                let ends = now.instant + OUTPUT_WAIT;
                self.outputs[&msg_id].ends = Some(ends);
                self.timers.insert((ends, msg_id));
            }
            None => {}
        }
    }

    /// Whether a request of our own for the list of engines is under way.
    fn is_refreshing(&self) -> bool {
        self.own.values().any(|own| *own == Own::Engines)
    }

    /// The list of engines came, or did not.
    fn refreshed(&mut self, now: Now, outcome: &Outcome, out: &mut Vec<Effect>) {
        let answering = matches!(outcome, Outcome::Reply(_));
        if answering != self.answering {
            self.answering = answering;
            out.push(Effect::Answering(answering));
        }
        if self.refresh.is_none() {
            self.refresh = Some(now.instant + REFRESH_EVERY);
        }
    }

    fn output(&mut self, now: Now, task: &MsgId, body: &Body, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.verify(body)?;
        // A control request has a parent of this session as well, and shows when it is busy and idle.
        let Some(collecting) = self.outputs.get_mut(task) else {
            return if self.requests.contains_key(task) { Ok(()) } else { Err(Refusal::Unexpected(task.clone())) };
        };
        let limit = self.output_limit_bytes;
        if collecting.is_raw {
            let msg_type = collecting.take_raw(self.session.packer(), body)?;
            out.push(Effect::Published { msg_id: task.clone(), msg_type, body: body.clone() });
        } else if let Some(piece) = collecting.take(&self.session, now.date, body, limit)? {
            out.push(Effect::Output { msg_id: task.clone(), piece });
        }
        if collecting.has_ended() {
            self.end_output(task, true, out);
        }
        Ok(())
    }

    fn end_output(&mut self, task: &MsgId, complete: bool, out: &mut Vec<Effect>) {
        let Some(collecting) = self.outputs.swap_remove(task) else { return };
        if let Some(at) = collecting.ends {
            self.timers.remove(&(at, task.clone()));
        }
        let dropped_bytes = collecting.dropped_bytes;
        out.push(Effect::OutputEnded { msg_id: task.clone(), complete, dropped_bytes });
    }

    fn assert_new(&self, msg_id: &MsgId) {
        assert!(
            !self.requests.contains_key(msg_id) && !self.outputs.contains_key(msg_id),
            "two requests are named `{msg_id}`"
        );
    }
}

/// The parts of a request, packed.
struct Parts<'a> {
    msg_type: MsgType,
    metadata: &'a [u8],
    content: &'a [u8],
    buffers: &'a [Bytes],
}

impl Machine for Outstanding {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Submit { msg_id, route, work } => self.submit(now, msg_id, &route, &work, out),
            Event::Broadcast { msg_id, broadcast, work } => self.broadcast(now, &msg_id, &broadcast, &work, out),
            Event::Query { msg_id, msg_type, content, timeout } => {
                self.assert_new(&msg_id);
                self.query(now, msg_id, msg_type, &content, timeout, out);
            }
            Event::Raw { msg_id, raw } => self.raw(now, msg_id, &raw, out),
            Event::Control { msg_id, engine, msg_type, content, timeout } => {
                self.assert_new(&msg_id);
                let (metadata, content) = (self.session.packer().empty_map(), self.pack(&content));
                let parts = Parts { msg_type, metadata, content: &content, buffers: &[] };
                self.send(now, msg_id, Channel::Control, Some(engine), timeout, &parts, out);
            }
            Event::Message { channel, frames } => {
                if let Err(refusal) = self.receive(now, channel, &frames, out) {
                    *self.refused.entry(refusal.kind()).or_default() += 1;
                    out.push(Effect::Refused { channel, refusal });
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.refresh].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some((_, msg_id)) = self.timers.pop_first_if_due(now.instant) {
            if let Some(request) = self.requests.get(&msg_id) {
                let waited = now.instant.since(request.sent);
                self.resolve(msg_id, Outcome::NoAnswer { waited }, now, out);
            } else {
                self.end_output(&msg_id, false, out);
            }
        }
        if self.refresh.is_some_and(|at| at <= now.instant) {
            self.refresh = None;
            // With the key, the controller says who it is.
            let content = json!({"remuda": {}});
            self.ask_own(now, Own::Engines, MsgType::ConnectionRequest, &content, out);
        }
    }

    fn check(&self) {
        let mut timers = BTreeSet::new();
        for (msg_id, request) in &self.requests {
            let is_task = request.channel.has_tasks();
            assert!(is_task || !self.outputs.contains_key(msg_id), "output of `{msg_id}`");
            assert!(!is_task || request.expires.is_none(), "task `{msg_id}` would expire");
            timers.extend(request.expires.map(|at| (at, msg_id.clone())));
            if let Some(uuid) = &request.engine {
                assert!(self.engines.has_request(uuid, msg_id), "engine `{uuid}` does not know `{msg_id}`");
            }
        }
        for (msg_id, collecting) in &self.outputs {
            let replied = !self.requests.contains_key(msg_id);
            assert_eq!(replied, collecting.ends.is_some(), "output of `{msg_id}` would never end");
            assert!(collecting.kept_bytes <= self.output_limit_bytes, "too much output of `{msg_id}`");
            timers.extend(collecting.ends.map(|at| (at, msg_id.clone())));
        }
        assert_eq!(timers, self.timers);
        let named = self.requests.values().filter(|request| request.engine.is_some()).count();
        assert_eq!(named, self.engines.request_count(), "engines list requests that have ended");
        for msg_id in self.own.keys() {
            assert!(self.requests.contains_key(msg_id), "`{msg_id}` is not outstanding");
        }
        assert!(!self.is_refreshing() || self.refresh.is_none(), "the list of engines would be asked for twice");
        self.engines.check();
        self.check_broadcasts();
        self.check_resend();
    }
}

trait PopDue {
    fn pop_first_if_due(&mut self, now: Instant) -> Option<(Instant, MsgId)>;
}

impl PopDue for BTreeSet<(Instant, MsgId)> {
    fn pop_first_if_due(&mut self, now: Instant) -> Option<(Instant, MsgId)> {
        if self.first()?.0 > now { None } else { self.pop_first() }
    }
}

#[cfg(test)]
mod tests;
