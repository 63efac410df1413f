//! Direct requests of an earlier controller that engines may still answer.
//!
//! An engine that comes back is asked what it has, on the queue that the requests went by. What it does not have was lost
//! with the earlier controller: its client is told so, and nothing is run again. Until it answers, its connection may not
//! be there: what is for it is kept.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use remuda_proto::monitor::Queue;
use remuda_proto::recovery::{FinishedTask, Recovery};
use remuda_proto::{Body, EngineUuid, Identity, Idents, Instant, Map, MsgId, Now, RemoteError, Session, Set};

use crate::probe::{self, FIRST_PAUSE, MAX_PAUSE};

/// Most messages kept for an engine that has not answered.
pub(crate) const MAX_KEPT: usize = 10_000;
/// Most of the requests that were given up that an engine is asked about: the last ones.
const MAX_NAMED_GIVEN_UP: usize = 1_000;
/// Most bytes kept for one.
pub(crate) const MAX_KEPT_BYTES: usize = 64 << 20;

/// A request that has no reply on record.
#[derive(Debug)]
pub(crate) struct Request {
    /// Who gets the reply.
    pub(crate) client: Identity,
    /// Its id.
    pub(crate) msg_id: MsgId,
    /// The request.
    pub(crate) body: Body,
}

impl Request {
    /// What its client is told.
    pub(crate) fn lost(&self, engine: Option<&EngineUuid>) -> RemoteError {
        let Self { msg_id, .. } = self;
        let engine = engine.map_or("?", |uuid| uuid.as_str());
        let evalue =
            format!("request '{msg_id}' to engine '{engine}' was lost when the controller died; it may have run");
        RemoteError::new("EngineError", evalue)
    }
}

/// An engine of the earlier controller.
#[derive(Debug, Default)]
struct Debtor {
    /// What it owes, by id, in the order in which it came.
    requests: Map<MsgId, Request>,
    /// What it owed and was given up: its client was told. All of it is among what is answered.
    given_up: Vec<MsgId>,
    /// What it was asked; `None`: it did not come back.
    question: Option<Question>,
    /// What is for it, in order, with the routing frames behind its own. At most [`MAX_KEPT`]. Empty unless it was asked.
    kept: VecDeque<(Idents, Body)>,
    /// The size of `kept`, at most [`MAX_KEPT_BYTES`].
    kept_bytes: usize,
}

impl Debtor {
    /// What the engine is asked about.
    fn named(&self) -> Vec<MsgId> {
        let given_up = self.given_up.iter().rev().take(MAX_NAMED_GIVEN_UP);
        self.requests.keys().chain(given_up).cloned().collect()
    }
}

/// A question that has no answer.
#[derive(Debug)]
struct Question {
    /// Its id, the same each time.
    msg_id: MsgId,
    /// When it is asked again.
    again_at: Instant,
    /// How long to wait after that.
    pause: Duration,
}

/// What becomes of a message for an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It waits for the engine's answer.
    Kept,
    /// It is to be sent.
    Send,
    /// Too much waits already.
    Full,
}

/// What a reply of an engine is.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To a request of this controller's time, or the first to one of before.
    Other,
    /// To a request of before that was answered already: an engine sends again what it holds, since it cannot know whether the
    /// first time did arrive.
    Repeated,
    /// To what the engine was asked.
    Settled(Settled),
}

/// What became of an engine that answered.
#[derive(Debug)]
pub(crate) struct Settled {
    /// What it does not have.
    pub(crate) lost: Vec<Request>,
    /// What was kept for it.
    pub(crate) kept: VecDeque<(Idents, Body)>,
}

/// What is owed by the engines of an earlier controller.
#[derive(Debug)]
pub(crate) struct Owed {
    /// The engines that did not answer yet.
    engines: BTreeMap<EngineUuid, Debtor>,
    /// The requests that were owed and have their reply, for as long as another can come.
    answered: Set<MsgId>,
    /// The requests that engines said they have, and have not answered, for as long. Disjoint from `answered`.
    running: Set<MsgId>,
    /// The requests that were given up and that engines said they have: nobody gets what these send, however late. By the
    /// engine, which none of is in `engines`.
    late: BTreeMap<EngineUuid, Set<MsgId>>,
    /// When those that did not come back are given up; `None`: they were.
    until: Option<Instant>,
}

impl Owed {
    /// What is on record of a queue. Engines that do not come back until then are given up.
    pub(crate) fn new(recovery: Recovery, queue: Queue, until: Instant) -> Self {
        let mut engines: BTreeMap<EngineUuid, Debtor> = BTreeMap::new();
        for uuid in recovery.engines {
            engines.entry(uuid).or_default();
        }
        for task in recovery.tasks {
            assert_eq!(task.queue, queue, "`{}` is for another scheduler", task.msg_id);
            // One that nobody waits for is the hub's business.
            if let (Some(uuid), Some(client)) = (task.engine, task.client) {
                let request = Request { client, msg_id: task.msg_id.clone(), body: task.body };
                engines.entry(uuid).or_default().requests.insert(task.msg_id, request);
            }
        }
        // One that was given up may still be answered, also by an engine that was not missed any more when this controller began.
        let mut answered = Set::default();
        for FinishedTask { msg_id, engine, .. } in recovery.finished.into_iter().filter(|task| !task.ok) {
            if let Some(uuid) = engine {
                engines.entry(uuid).or_default().given_up.push(msg_id.clone());
                answered.insert(msg_id);
            }
        }
        Self { engines, answered, running: Set::default(), late: BTreeMap::new(), until: Some(until) }
    }

    /// The requests that have no reply, with the engine of each.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&EngineUuid, &Request)> {
        self.engines.iter().flat_map(|(uuid, debtor)| debtor.requests.values().map(move |request| (uuid, request)))
    }

    /// Whether nothing is left to settle.
    pub(crate) fn is_over(&self) -> bool {
        let nothing_comes_twice = self.answered.is_empty() && self.running.is_empty();
        self.engines.is_empty() && self.late.is_empty() && (nothing_comes_twice || self.until.is_none())
    }

    /// An engine is registered: the question that it is to be asked, unless it was asked, or is a new one.
    pub(crate) fn ask(&mut self, session: &mut Session, now: Now, uuid: &EngineUuid) -> Option<Body> {
        let debtor = self.engines.get_mut(uuid)?;
        if debtor.question.is_some() {
            return None;
        }
        let (msg_id, body) = probe::question(session, now.date, None, debtor.named());
        debtor.question = Some(Question { msg_id, again_at: now.instant + FIRST_PAUSE, pause: FIRST_PAUSE });
        Some(body)
    }

    /// Keeps a message for an engine that was asked and did not answer.
    pub(crate) fn keep(&mut self, engine: &Identity, idents: &Idents, body: &Body) -> Keep {
        let debtor = engine.to_engine().and_then(|uuid| self.engines.get_mut(&uuid));
        let Some(debtor) = debtor.filter(|debtor| debtor.question.is_some()) else { return Keep::Send };
        let size_bytes = body.size_bytes();
        if debtor.kept.len() >= MAX_KEPT || debtor.kept_bytes + size_bytes > MAX_KEPT_BYTES {
            return Keep::Full;
        }
        debtor.kept_bytes += size_bytes;
        debtor.kept.push_back((idents.clone(), body.clone()));
        Keep::Kept
    }

    /// An engine sent a reply.
    pub(crate) fn reply(&mut self, session: &Session, engine: &Identity, parent: &MsgId, body: &Body) -> Reply {
        if self.answered.contains(parent) {
            self.forget_late(engine, parent);
            return Reply::Repeated;
        }
        if self.running.swap_remove(parent) {
            self.answered.insert(parent.clone());
            return Reply::Other;
        }
        let Some(uuid) = engine.to_engine() else { return Reply::Other };
        let Some(debtor) = self.engines.get_mut(&uuid) else { return Reply::Other };
        if debtor.question.as_ref().is_none_or(|question| question.msg_id != *parent) {
            if debtor.requests.shift_remove(parent).is_some() {
                self.answered.insert(parent.clone());
            }
            return Reply::Other;
        }
        let Some(Debtor { mut requests, given_up, kept, .. }) = self.engines.remove(&uuid) else {
            return Reply::Other;
        };
        for msg_id in probe::answer(session.packer(), body).into_iter().flatten() {
            if requests.shift_remove(&msg_id).is_some() {
                self.running.insert(msg_id);
            } else if given_up.contains(&msg_id) {
                self.late.entry(uuid.clone()).or_default().insert(msg_id);
            }
        }
        self.answered.extend(requests.keys().cloned());
        Reply::Settled(Settled { lost: requests.into_values().collect(), kept })
    }

    /// An engine is gone. Clients fail what it had by themselves, and what it was to get.
    pub(crate) fn gone(&mut self, uuid: &EngineUuid) {
        self.engines.remove(uuid);
        self.late.remove(uuid);
    }

    /// An engine sent what it was known to have.
    fn forget_late(&mut self, engine: &Identity, msg_id: &MsgId) {
        let Some(uuid) = engine.to_engine() else { return };
        if let Some(late) = self.late.get_mut(&uuid) {
            late.swap_remove(msg_id);
            if late.is_empty() {
                self.late.remove(&uuid);
            }
        }
    }

    /// When there is something to do next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let again = self.engines.values().filter_map(|debtor| debtor.question.as_ref());
        let again = again.map(|question| question.again_at).min();
        self.until.into_iter().chain(again).min()
    }

    /// The engines to ask once more by now, and what they are asked.
    pub(crate) fn ask_again(&mut self, session: &mut Session, now: Now) -> Vec<(Identity, Body)> {
        let mut questions = Vec::new();
        for (uuid, debtor) in &mut self.engines {
            if debtor.question.as_ref().is_none_or(|question| question.again_at > now.instant) {
                continue;
            }
            let named = debtor.named();
            let Some(question) = debtor.question.as_mut() else { continue };
            let (_, body) = probe::question(session, now.date, Some(&question.msg_id), named);
            question.pause = (question.pause * 2).min(MAX_PAUSE);
            question.again_at = now.instant + question.pause;
            questions.push((uuid.identity(), body));
        }
        questions
    }

    /// What engines owed that did not come back in time, once that is over.
    pub(crate) fn give_up(&mut self, now: Now) -> Vec<(EngineUuid, Request)> {
        if self.until.take_if(|until| *until <= now.instant).is_none() {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for (uuid, debtor) in self.engines.iter_mut().filter(|(_, debtor)| debtor.question.is_none()) {
            debtor.given_up.extend(debtor.requests.keys().cloned());
            lost.extend(debtor.requests.drain(..).map(|(_, request)| (uuid.clone(), request)));
        }
        self.answered.extend(lost.iter().map(|(_, request)| request.msg_id.clone()));
        lost
    }

    /// Panics if something is kept that nobody will send.
    pub(crate) fn check(&self) {
        assert!(self.running.is_disjoint(&self.answered), "{:?} and {:?}", self.running, self.answered);
        for msg_id in self.engines.values().flat_map(|debtor| &debtor.given_up).chain(self.late.values().flatten()) {
            assert!(self.answered.contains(msg_id), "`{msg_id}` was given up, and its client has no answer");
        }
        assert!(self.late.values().all(|late| !late.is_empty()));
        for (uuid, Debtor { requests, question, kept, kept_bytes, .. }) in &self.engines {
            assert!(question.is_some() || kept.is_empty(), "{} messages are kept for `{uuid}`", kept.len());
            assert_eq!(*kept_bytes, kept.iter().map(|(_, body)| body.size_bytes()).sum::<usize>(), "`{uuid}`");
            assert!(!requests.keys().any(|msg_id| self.answered.contains(msg_id)), "`{uuid}` owes what is answered");
            assert!(kept.len() <= MAX_KEPT && *kept_bytes <= MAX_KEPT_BYTES, "`{uuid}`");
            assert!(
                self.until.is_some() || question.is_some() || requests.is_empty(),
                "`{uuid}` owes {} for ever",
                requests.len()
            );
        }
    }
}
