//! The machine that registers engines, tracks tasks and answers queries (`controller/hub.py`).

mod departed;
mod drain;
mod reports;

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::message::MsgType;
use remuda_proto::message::content::{ControllerInfo, EngineNotification};
use remuda_proto::message::native::Capability;
use remuda_proto::message::story::{DriverState, HeartState};
use remuda_proto::monitor::{IntakeLimit, Monitor};
use remuda_proto::recovery::Recovered;
use remuda_proto::{
    Body, EngineId, EngineUuid, Identity, Idents, Instant, Machine, Map, MsgId, Now, Refusal, SeenSignatures, Session,
};
use serde::Serialize;
use serde_json::json;

use self::departed::Departed;
use self::drain::Draining;
use crate::asks::{Asks, Then};
use crate::engine_state::{EngineState, Grant};
use crate::query;
use crate::question::{Question, Questions};
use crate::registry::{Engine, MAX_ENGINES, Registry};
use crate::store::{Answer, Ask, StoreError, Write};
use crate::tracking::Tracking;

/// From the reply to a `shutdown_request` to the end of the process (`controller/hub.py: Hub.shutdown_request`).
pub const SHUTDOWN_DELAY: Duration = Duration::from_secs(1);

/// From a change of the registered engines until they are saved, so that many that come at once are saved once.
pub const SAVE_ENGINES_AFTER: Duration = Duration::from_millis(100);

/// By default, how long direct requests of an earlier controller wait for their engines: longer than the schedulers give
/// these to come back.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How the hub behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Period of the heartbeat in milliseconds, as engines are told.
    pub heart_period_ms: u64,
    /// How long an engine may take from its registration to its first reported beat, and how long after an engine
    /// left its unanswered direct requests are given up. See [`Config::with_heart_period`].
    pub registration_timeout: Duration,
    /// How long the schedulers of a controller that takes over may wait for the engines of direct requests. After that
    /// the hub gives up what they have not.
    pub recovery_timeout: Duration,
    /// What is returned as `connection_info` when an engine registers: its connection file again.
    pub engine_connection: serde_json::Value,
    /// Most engines, pending ones included; at most [`MAX_ENGINES`].
    pub max_engines: usize,
    /// Largest query answered, in bytes, all its frames together.
    pub max_message_bytes: usize,
    /// What the controller says of itself to who asks with the key `remuda`.
    pub controller: ControllerInfo,
    /// How the controller is set up, without its keys, for who asks for its whole state.
    pub in_effect: serde_json::Value,
    /// When the controller started.
    pub started_at: Instant,
}

impl Config {
    /// The stock behaviour at this period of the heartbeat: `max(30 s, period in ms / 100 as seconds)` to register
    /// (`controller/hub.py: registration_timeout`).
    pub fn with_heart_period(period: Duration) -> Self {
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self {
            heart_period_ms: period_ms,
            registration_timeout: Duration::from_secs((period_ms / 100).max(30)),
            recovery_timeout: RECOVERY_TIMEOUT,
            engine_connection: serde_json::Value::Object(serde_json::Map::new()),
            max_engines: MAX_ENGINES,
            max_message_bytes: usize::MAX,
            controller: ControllerInfo::default(),
            in_effect: serde_json::Value::Null,
            started_at: Instant::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::with_heart_period(Duration::from_secs(3))
    }
}

/// What can happen to the hub.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came to the registration and query socket.
    Query {
        /// Who asks.
        from: Idents,
        /// What.
        body: Body,
    },
    /// A scheduler saw something. A request must be reported before its engine can get it.
    Monitor(Monitor),
    /// The heart monitor: these hearts beat, and answered pings that were sent at these times.
    NewHearts(Vec<(EngineUuid, Instant)>),
    /// The heart monitor: these hearts stopped.
    StoppedHearts(Vec<EngineUuid>),
    /// These engines were registered with an earlier controller. Each is registered again once its heart beats, unless
    /// that takes longer than a registration may.
    Restore(EngineState),
    /// An earlier controller had these requests, which have no reply. They are on record, and the schedulers have them. Comes
    /// before any of their reports.
    Recover(Vec<Recovered>),
    /// The heart monitor answers [`Effect::Explain`].
    Hearts {
        /// The number of the question.
        question: u64,
        /// The answer.
        hearts: HeartState,
    },
    /// The drivers answer [`Effect::Explain`].
    Drivers {
        /// The number of the question.
        question: u64,
        /// The answer.
        drivers: DriverState,
    },
    /// The store answers [`Effect::Ask`].
    Answered {
        /// The number of the question.
        question: u64,
        /// The answer.
        answer: Result<Answer, StoreError>,
    },
    /// The store cannot commit what was written, for now; `None`: it can again.
    StoreTrouble(Option<StoreError>),
    /// The store cannot make some changes, ever, and dropped them.
    StoreRefused {
        /// How many.
        changes: u64,
    },
    /// The process is told to end.
    Stop,
}

/// What the hub asks for. Where one event calls for several, they come in the order of these variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Give this to the store.
    Store(Write),
    /// Ask the store, which has been given all that was to be written before, and answers by an [`Event::Answered`].
    Ask {
        /// Number of the question: each has its own.
        question: u64,
        /// What.
        ask: Ask,
    },
    /// Tell the schedulers that an engine is registered, before anybody else can know.
    Joined {
        /// The engine's uuid.
        uuid: EngineUuid,
        /// Its id.
        id: EngineId,
        /// What it can run.
        capability: Capability,
    },
    /// Tell the schedulers that an engine is gone.
    Left {
        /// The engine's uuid.
        uuid: EngineUuid,
        /// The id it had.
        id: EngineId,
    },
    /// Tell the heart monitor to forget this heart.
    ForgetHeart(EngineUuid),
    /// Give a request of the hub's own to the task scheduler, which tells the hub of its reply. Before anybody else can
    /// know of it.
    Resubmit {
        /// Its id.
        msg_id: MsgId,
        /// The request, signed.
        body: Body,
    },
    /// Tell the task scheduler that an engine gets no more tasks, or that it does again. It answers by a
    /// [`Monitor::Drained`] when the engine has none left.
    Drain {
        /// The engine.
        uuid: EngineUuid,
        /// The number of the request; `None`: it gets tasks again.
        request: Option<u64>,
    },
    /// Give a request to the control relay, for an engine or its nanny: the task scheduler's, or one of the hub's own.
    Signal {
        /// The engine.
        engine: EngineUuid,
        /// The request, signed.
        body: Body,
    },
    /// Ask the task scheduler about these tasks, which answers by a [`Monitor::Explained`]. With `whole`, ask the heart
    /// monitor and the drivers how they stand, too ([`Event::Hearts`], [`Event::Drivers`]).
    Explain {
        /// Number of the question.
        question: u64,
        /// The tasks.
        msg_ids: Vec<MsgId>,
        /// Whether everything is asked for.
        whole: bool,
    },
    /// Keep this for the next controller, beside what was kept before, until [`Effect::SaveEngines`]: before the engine hears
    /// of it.
    KeepGrant(Grant),
    /// Answer a query.
    Reply {
        /// The routing frames of the query.
        to: Idents,
        /// The answer.
        body: Body,
    },
    /// Tell the heart monitor that this heart should beat soon: its engine was granted its registration.
    ExpectHeart(EngineUuid),
    /// Publish a notification, without topic.
    Notify(Body),
    /// Keep this for the next controller, in the place of what was kept before.
    SaveEngines(EngineState),
    /// Something had no effect.
    Refused {
        /// Who sent it, if that is known.
        from: Option<Identity>,
        /// Why.
        refusal: Refusal,
    },
    /// What the store should have known for the sake of the records it did not know: these are not what they should be.
    /// Counted by the hub, to be logged.
    StoreFailed(StoreError),
    /// End the process, with status 0.
    Exit,
}

/// Registers engines, tracks tasks, answers queries.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: Config,
    /// Makes and verifies messages.
    pub(crate) session: Session,
    /// Signatures of the queries that came.
    pub(crate) seen: SeenSignatures,
    /// Who is registered.
    pub(crate) registry: Registry,
    /// What became of each request, and what each engine has to do. Knows every registered engine.
    pub(crate) tracking: Tracking,
    /// Questions that wait for the store.
    pub(crate) asks: Asks,
    /// How many changes of records were lost.
    pub(crate) store_errors: u64,
    /// Why the store cannot commit at the moment.
    pub(crate) store_trouble: Option<StoreError>,
    /// Questions that wait for other parts of the controller.
    pub(crate) questions: Questions,
    /// The limit because of which the task scheduler reads nothing from clients at the moment.
    pub(crate) paused: Option<IntakeLimit>,
    /// Engines that left and whose direct requests are not given up yet, by ascending time of that. `tracking` knows
    /// them still; `registry` does not, unless their uuid or id came back.
    departed: VecDeque<Departed>,
    /// When the hub last looked how long it has waited for hearts of pending registrations and for replies of `departed`:
    /// `None` exactly while it waits for neither.
    looked_at: Option<Instant>,
    /// Those of the registered engines that get no more tasks, and such ones of an earlier controller that are awaited.
    draining: Map<EngineId, Draining>,
    /// Number of the next request to give an engine no more tasks.
    next_drain: u64,
    /// When to save which engines are registered: set while that changed since they were saved.
    save_at: Option<Instant>,
    /// When to end the process: set by a `shutdown_request`.
    pub(crate) exit_at: Option<Instant>,
}

impl Hub {
    /// A hub without engines. `session` is its own: nobody else makes messages with it.
    pub fn new(config: Config, session: Session) -> Self {
        Self {
            registry: Registry::new(config.max_engines),
            config,
            session,
            seen: SeenSignatures::default(),
            tracking: Tracking::default(),
            asks: Asks::default(),
            store_errors: 0,
            store_trouble: None,
            questions: Questions::default(),
            paused: None,
            departed: VecDeque::new(),
            draining: Map::default(),
            next_drain: 0,
            looked_at: None,
            save_at: None,
            exit_at: None,
        }
    }

    /// The registered engines, in the order in which they came.
    pub fn engines(&self) -> impl Iterator<Item = (EngineId, &EngineUuid)> {
        self.registry.engines().map(|engine| (engine.id, &engine.uuid))
    }

    /// The engines that get no more tasks, registered or awaited.
    pub fn draining(&self) -> impl Iterator<Item = EngineId> {
        self.draining.keys().copied()
    }

    /// How many tasks wait for an engine, and how many requests are with one.
    pub fn waiting_and_running(&self) -> (usize, usize) {
        (self.tracking.waiting(), self.tracking.running())
    }

    /// A message of the hub's own.
    pub(crate) fn message(
        &mut self,
        now: Now,
        msg_type: MsgType,
        parent: Option<&[u8]>,
        content: &(impl Serialize + ?Sized),
    ) -> Body {
        let made = self.session.message(now.date, msg_type, parent, &json!({}), content, &[]);
        made.expect("contents of our own can be packed").1
    }

    /// Removes engines that are registered. Schedulers hear of all of them before anybody else hears of one.
    pub(crate) fn unregister(&mut self, now: Now, ids: &[EngineId], heart_stopped: bool, out: &mut Vec<Effect>) {
        if !ids.is_empty() {
            self.save_at.get_or_insert(now.instant + SAVE_ENGINES_AFTER);
        }
        let gone: Vec<_> = ids.iter().filter_map(|id| self.registry.remove(*id)).collect();
        for id in ids {
            self.draining.swap_remove(id);
        }
        out.extend(gone.iter().map(|engine| Effect::Left { uuid: engine.uuid.clone(), id: engine.id }));
        if !heart_stopped {
            out.extend(gone.iter().map(|engine| Effect::ForgetHeart(engine.uuid.clone())));
        }
        for Engine { id, uuid, key, .. } in gone {
            let content = EngineNotification { id, uuid: uuid.clone() };
            out.push(Effect::Notify(self.message(now, MsgType::UnregistrationNotification, None, &content)));
            let give_up_at = now.instant + self.config.registration_timeout;
            let at = self.departed.partition_point(|departed| departed.give_up_at <= give_up_at);
            self.departed.insert(at, Departed { give_up_at, name: id.to_string(), uuid, key });
        }
    }

    /// Asks the store, and remembers what for.
    pub(crate) fn ask(&mut self, ask: Ask, then: Then, out: &mut Vec<Effect>) {
        let question = self.asks.ask(then);
        out.push(Effect::Ask { question, ask });
    }

    /// The store has answered.
    fn store_answered(&mut self, now: Now, question: u64, answer: Result<Answer, StoreError>, out: &mut Vec<Effect>) {
        match self.asks.answered(question) {
            Then::Query { query, awaited } => query::resume(self, now, query, awaited, answer, out),
            Then::Question { question, seen } => query::tell(self, now, &question, &seen, answer, out),
            Then::State { question } => {
                let state = match answer {
                    Ok(Answer::State(state)) => Some(state),
                    Ok(other) => panic!("asked for its state, the store answers {other:?}"),
                    // Who asked is told that it said nothing.
                    Err(_) => None,
                };
                self.answered(question, out, |of| of.records = state);
            }
            Then::GiveUp { engines } => self.give_up_these(now, &engines, answer, out),
        }
    }

    fn new_hearts(&mut self, now: Now, hearts: Vec<(EngineUuid, Instant)>, out: &mut Vec<Effect>) {
        let mut joined = Vec::new();
        let mut unexpected = Vec::new();
        for (uuid, pinged) in hearts {
            if let Some(pending) = self.registry.take_pending(&uuid, pinged) {
                let key = self.tracking.engine_joined(uuid.clone());
                let engine = Engine { id: pending.id, uuid: uuid.clone(), announcement: pending.announcement, key };
                let capability = engine.capability();
                self.registry.insert(engine);
                self.save_at.get_or_insert(now.instant + SAVE_ENGINES_AFTER);
                out.push(Effect::Joined { uuid: uuid.clone(), id: pending.id, capability });
                self.tell_drain(pending.id, out);
                joined.push(EngineNotification { id: pending.id, uuid });
            } else if self.registry.by_uuid(uuid.as_str()).is_none() {
                // It beats but did not register, or not in time, or what was heard is from its life before. Stock never hears
                // of it again; here it is new at each beat, so that its registration completes whenever it comes.
                unexpected.push(uuid);
            }
        }
        out.extend(unexpected.into_iter().map(Effect::ForgetHeart));
        for content in joined {
            out.push(Effect::Notify(self.message(now, MsgType::RegistrationNotification, None, &content)));
        }
    }

    fn stopped_hearts(&mut self, now: Now, hearts: &[EngineUuid], out: &mut Vec<Effect>) {
        let ids: Vec<_> =
            hearts.iter().filter_map(|uuid| self.registry.by_uuid(uuid.as_str())).map(|engine| engine.id).collect();
        self.unregister(now, &ids, true, out);
    }

    /// How many engines left and may still answer direct requests.
    pub(crate) fn departed(&self) -> usize {
        self.departed.len()
    }

    /// Somebody answered a question; if nothing is missing any more, so does the hub.
    fn answered(&mut self, number: u64, out: &mut Vec<Effect>, put: impl FnOnce(&mut Question)) {
        if let Some(question) = self.questions.answer(number, put) {
            query::answer_question(self, question, out);
        }
    }
}

impl Hub {
    /// How often the hub looks, while it waits for hearts or late replies.
    fn look_every(&self) -> Duration {
        Duration::from_millis(self.config.heart_period_ms.max(1))
    }

    /// Time in which the hub itself did not run is no time that others took: a process that was stopped, or a machine that
    /// was suspended, must not give up engines whose hearts it could not hear. Called first of all.
    #[inline]
    fn catch_up(&mut self, now: Instant) {
        let Some(looked_at) = self.looked_at else { return };
        let since = now.since(looked_at);
        if since > self.look_every() * 2 {
            self.registry.postpone(since);
            self.departed.iter_mut().for_each(|departed| departed.give_up_at = departed.give_up_at + since);
        }
    }

    /// Notes that the hub ran, if it waits for anything. Called last of all.
    #[inline]
    fn note_run(&mut self, now: Instant) {
        let waits = self.registry.deadline().is_some() || !self.departed.is_empty();
        self.looked_at = waits.then_some(now);
    }

    fn save_engines(&mut self, out: &mut Vec<Effect>) {
        if self.save_at.take().is_some() {
            let drained = self.drained_state().collect();
            out.push(Effect::SaveEngines(EngineState { drained, ..self.registry.state() }));
        }
    }

    fn exit(&mut self, out: &mut Vec<Effect>) {
        self.save_engines(out);
        out.push(Effect::Exit);
    }
}

/// Says that something had no effect.
pub(crate) fn refuse(out: &mut Vec<Effect>, from: Option<Identity>, refusal: Refusal) {
    out.push(Effect::Refused { from, refusal });
}

impl Machine for Hub {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.catch_up(now.instant);
        match event {
            Event::Query { from, body } => query::answer(self, now, from, body, out),
            Event::Monitor(seen) => self.monitor(now, seen, out),
            Event::NewHearts(hearts) => self.new_hearts(now, hearts, out),
            Event::StoppedHearts(hearts) => self.stopped_hearts(now, &hearts, out),
            Event::Restore(mut state) => {
                self.restore_drained(std::mem::take(&mut state.drained));
                let awaited = self.registry.restore(state, now.instant + self.config.registration_timeout);
                out.extend(awaited.into_iter().map(Effect::ExpectHeart));
            }
            Event::Recover(requests) => self.recover(now, requests, out),
            Event::Hearts { question, hearts } => self.answered(question, out, |of| of.hearts = Some(hearts)),
            Event::Drivers { question, drivers } => {
                self.answered(question, out, |of| of.drivers = Some(drivers));
            }
            Event::Answered { question, answer } => self.store_answered(now, question, answer, out),
            Event::StoreTrouble(trouble) => self.store_trouble = trouble,
            Event::StoreRefused { changes } => self.store_errors += changes,
            Event::Stop => self.exit(out),
        }
        self.note_run(now.instant);
    }

    fn deadline(&self) -> Option<Instant> {
        let give_up = self.departed.front().map(|departed| departed.give_up_at);
        let look = self.looked_at.map(|looked_at| looked_at + self.look_every());
        let question = self.questions.deadline();
        [self.registry.deadline(), give_up, look, self.save_at, self.exit_at, question].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.catch_up(now.instant);
        self.registry.purge_stalled(now.instant);
        let registry = &self.registry;
        self.draining.retain(|id, _| registry.knows(*id));
        self.give_up(now, out);
        while let Some(question) = self.questions.overdue(now.instant) {
            query::answer_question(self, question, out);
        }
        self.note_run(now.instant);
        if self.save_at.is_some_and(|at| at <= now.instant) {
            self.save_engines(out);
        }
        if self.exit_at.is_some_and(|at| at <= now.instant) {
            self.exit_at = None;
            self.exit(out);
        }
    }

    fn check(&self) {
        self.registry.check();
        self.tracking.check();
        self.asks.check();
        self.questions.check();
        for engine in self.registry.engines() {
            assert!(self.tracking.counts(engine.key).is_some(), "engine {} is not tracked", engine.id);
        }
        for (id, draining) in &self.draining {
            assert!(self.registry.knows(*id) || !draining.is_told(), "engine {id} is told to end but is not there");
        }
        let waits = self.registry.deadline().is_some() || !self.departed.is_empty();
        assert_eq!(self.looked_at.is_some(), waits, "it looks after what it waits for, and only then");
        let mut last = None;
        for departed in &self.departed {
            assert!(self.tracking.counts(departed.key).is_some(), "engine {} is not tracked any more", departed.name);
            assert!(last <= Some(departed.give_up_at), "departed engines out of order");
            last = Some(departed.give_up_at);
        }
    }
}
