//! The whole cluster: the controller's threads, engines, clients, and the network between them.

mod clients;
mod controller;
mod engines;
mod faults;
pub mod scenario;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_hub::hub::{self, Hub};
use remuda_hub::store::{MemoryStore, NoStore, TaskStore};
use remuda_hub::{HeartMonitor, Limits, heart};
use remuda_proto::message::content::ControllerInfo;
use remuda_proto::{EngineUuid, Identity, Instant, Key, MsgId, Session, SessionId};
use remuda_scheduler::{OutputRelay, Relay, Scheme, TaskConfig, relay};

use crate::checker::{ClientBook, Rules, TaskBook, Verdict, Violation};
use crate::client::ClientNode;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::engine::EngineNode;
use crate::log::{Line, Log};
use crate::network::{Channel, Network, Payload, Peer, Way};
use crate::parameters::{Kind, Parameters};
use crate::part::{Part, PartName};
use crate::tamper::{Tampering, TaskCore};

/// The key that signs everything.
const KEY: &str = "the-key-of-all-simulated-clusters";

/// A run that needs more events than this does not settle, whatever the clock says.
const MAX_STEPS: u64 = 3_000_000;

/// How a run is watched.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The task scheduler is broken in this way.
    pub tampering: Option<Tampering>,
    /// Keep a line for everything that happens.
    pub record: bool,
    /// Let each machine check itself at each so many of its events.
    pub check_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { tampering: None, record: false, check_every: 4 }
    }
}

/// Something that is to happen.
#[derive(Debug)]
enum Happening {
    /// A message arrives.
    Arrive { peer: Peer, channel: Channel, way: Way, payload: Payload },
    /// A thread of the controller takes its turn.
    Turn(PartName),
    /// An engine starts.
    Start(Kind),
    /// An engine's deadline comes.
    EngineDeadline(u32),
    /// What an engine runs ends.
    Done { engine: u32, run: u64 },
    /// A frozen engine goes on.
    Thaw(u32),
    /// A slow engine is as fast as it was.
    Quicken(u32),
    /// A client hears at once again of what happens to engines.
    FreshNews(u32),
    /// A nanny tells the hub that its engine is gone.
    NannyTells(u32),
    /// A client does something.
    Act(u32),
    /// Something goes wrong.
    Fault,
    /// From now on nothing goes wrong, and clients want nothing more.
    Calm,
    /// Look whether all has settled.
    Look,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Work and faults.
    Busy,
    /// Everything has to settle by then.
    Settling { by: Instant },
    /// The hub was asked for all that it knows, by these messages.
    Asking { by: Instant },
    /// Everything is as it should be.
    Settled,
}

/// What a run was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many things happened.
    pub steps: u64,
    /// How many tasks were accepted.
    pub tasks: u64,
    /// How many direct requests were sent.
    pub direct: u64,
    /// How many things went wrong.
    pub faults: u64,
    /// How many messages were lost.
    pub lost: u64,
    /// Virtual time.
    pub time: Duration,
    /// How many tasks ended in which way, were tried again, or lost their engine.
    pub endings: BTreeMap<String, u64>,
    /// Digest of all that happened.
    pub digest: u64,
}

/// Random draws, by concern.
struct DiceBox {
    workload: Dice,
    faults: Dice,
    engines: Dice,
    threads: Dice,
}

/// The whole cluster.
pub struct World {
    parameters: Parameters,
    options: Options,
    clock: Clock<Happening>,
    log: Log,
    network: Network,
    hub: Part<Hub>,
    heart: Part<HeartMonitor>,
    task: Part<TaskCore>,
    mux: Part<Relay>,
    control: Part<Relay>,
    output: Part<OutputRelay>,
    /// All engines that ever were.
    engines: Vec<EngineNode>,
    /// The same by identity.
    by_identity: BTreeMap<Identity, u32>,
    /// The engines that the hub says are registered.
    registered: BTreeSet<EngineUuid>,
    clients: Vec<ClientNode>,
    /// What went over the sockets of the task scheduler.
    book: TaskBook,
    /// What clients sent and got.
    sent: ClientBook,
    dice: DiceBox,
    phase: Phase,
    /// The last questions to the hub: for the queues, for the results.
    questions: Vec<MsgId>,
    /// Somebody had records purged, so that they are not there to be compared.
    purged: bool,
    direct: u64,
    faults: u64,
    steps: u64,
}

impl World {
    /// A cluster of this shape, at the beginning of time.
    pub fn new(parameters: Parameters, options: Options) -> Self {
        let seed = parameters.seed;
        let (key, packer) = (Key::new(KEY), parameters.packer);
        let session =
            |name: &str| Session::new(SessionId::from(format!("controller-{name}")), "sim", key.clone(), packer, 1);
        let heart_config = heart::Config { period: parameters.heart_period, max_misses: parameters.max_misses };
        let hub_config = hub::Config {
            registration_timeout: parameters.registration_timeout,
            controller: ControllerInfo { version: "sim".to_owned(), ..ControllerInfo::default() },
            ..hub::Config::with_heart_period(parameters.heart_period)
        };
        let store: Box<dyn TaskStore> = if parameters.records {
            // Nothing is dropped, so that all that was done can be looked up in the end.
            Box::new(MemoryStore::new(Limits { records: 1_000_000, ..Limits::default() }))
        } else {
            Box::new(NoStore)
        };
        let task_config = TaskConfig {
            scheme: parameters.scheme,
            hwm: parameters.hwm,
            grace: parameters.grace,
            max_pending_tasks: parameters.max_pending_tasks,
            seed,
            ..TaskConfig::default()
        };
        let rules = Rules {
            session: session("checker"),
            pure: parameters.scheme == Scheme::Pure,
            hwm: parameters.hwm,
            grace: parameters.grace,
        };
        let clients = (0..parameters.clients)
            .map(|number| ClientNode::new(number, key.clone(), packer, parameters.acts))
            .collect();
        let mut world = Self {
            clock: Clock::new(),
            log: Log::new(packer, options.record),
            network: Network::new(parameters.latency, Dice::new(seed, "network")),
            hub: Part::new(Hub::new(hub_config, session("hub"), store)),
            heart: Part::new(HeartMonitor::new(heart_config, Instant(0))),
            task: Part::new(TaskCore::new(task_config, session("task"), options.tampering)),
            mux: Part::new(Relay::new(relay::Channel::Mux, session("mux"))),
            control: Part::new(Relay::new(relay::Channel::Control, session("control"))),
            output: Part::new(OutputRelay::new(session("iopub"))),
            engines: Vec::new(),
            by_identity: BTreeMap::new(),
            registered: BTreeSet::new(),
            clients,
            book: TaskBook::new(rules),
            sent: ClientBook::new(session("checker")),
            dice: DiceBox {
                workload: Dice::new(seed, "workload"),
                faults: Dice::new(seed, "faults"),
                engines: Dice::new(seed, "engines"),
                threads: Dice::new(seed, "threads"),
            },
            phase: Phase::Busy,
            questions: Vec::new(),
            purged: false,
            direct: 0,
            faults: 0,
            steps: 0,
            parameters,
            options,
        };
        world.begin();
        world
    }

    /// Plans all that is known from the start.
    fn begin(&mut self) {
        for (kind, at) in self.parameters.engines.clone() {
            self.clock.after(at, Happening::Start(kind));
        }
        for client in 0..self.parameters.clients {
            self.client_connects(client);
            let first = self.dice.workload.around(Duration::from_millis(500));
            self.clock.after(first, Happening::Act(client));
        }
        if !self.parameters.fault_weights.is_empty() {
            let first = self.dice.faults.around(self.parameters.fault_pause);
            self.clock.after(first, Happening::Fault);
        }
        self.clock.after(self.parameters.calm_at, Happening::Calm);
        PartName::ALL.into_iter().for_each(|part| self.plan(part));
    }

    /// Runs until everything has settled, or for so many steps.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run(&mut self, steps: Option<u64>) -> Verdict {
        while self.phase != Phase::Settled && steps.is_none_or(|steps| self.steps < steps) {
            self.step()?;
        }
        Ok(())
    }

    /// Runs for this long.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run_for(&mut self, time: Duration) -> Verdict {
        let until = self.clock.instant() + time;
        while self.clock.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        Ok(())
    }

    /// The next thing happens.
    ///
    /// # Errors
    /// What was wrong about it.
    pub fn step(&mut self) -> Verdict {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Violation::new("settled", format!("more than {MAX_STEPS} things happened")));
        }
        let happening = self.clock.advance().expect("the heart beats for ever");
        let now = self.clock.instant();
        match happening {
            Happening::Arrive { peer, channel, way, payload } => {
                if !self.network.arrives(now, peer, channel, way) {
                    return Ok(());
                }
                match (way, peer) {
                    (Way::In, _) => self.controller_receives(peer, channel, payload),
                    (Way::Out, Peer::Engine(engine)) => self.engine_receives(engine, channel, payload),
                    (Way::Out, Peer::Client(client)) => return self.client_receives(client, channel, payload),
                    (Way::Out, Peer::Nanny(_)) => {}
                }
            }
            Happening::Turn(part) => return self.turn(part),
            Happening::Start(kind) => _ = self.start_engine(kind, None),
            Happening::EngineDeadline(engine) => self.engine_deadline(engine),
            Happening::Done { engine, run } => self.engine_done(engine, run),
            Happening::Thaw(engine) => self.thaw(engine),
            Happening::Quicken(engine) => self.engines[engine as usize].slowness = 1,
            Happening::FreshNews(client) => {
                self.network.lag(Peer::Client(client), Channel::Notification, Duration::ZERO);
            }
            Happening::NannyTells(engine) => self.nanny_tells(engine),
            Happening::Act(client) => self.act(client),
            Happening::Fault => self.fault(),
            Happening::Calm => self.calm(),
            Happening::Look => return self.look(),
        }
        Ok(())
    }

    /// Whether nothing goes wrong any more.
    fn is_calm(&self) -> bool {
        self.phase != Phase::Busy
    }

    /// Sends something over the network.
    fn send(&mut self, peer: Peer, channel: Channel, way: Way, payload: Payload) {
        if let Some(at) = self.network.send(self.clock.instant(), peer, channel, way) {
            self.clock.schedule(at, Happening::Arrive { peer, channel, way, payload });
        }
    }

    /// What the run was like so far.
    pub fn report(&self) -> Report {
        Report {
            steps: self.steps,
            tasks: self.book.accepted() as u64,
            direct: self.direct,
            faults: self.faults,
            lost: self.network.lost,
            time: self.clock.instant().since(Instant(0)),
            endings: self.book.endings(),
            digest: self.log.digest(),
        }
    }

    /// Whether everything has settled.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Settled
    }

    /// The lines recorded.
    pub fn into_lines(mut self) -> Vec<Line> {
        self.log.take_lines()
    }
}
