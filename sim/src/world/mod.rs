//! The whole cluster: the controller's threads, engines, clients, and the network between them.

mod clients;
mod controller;
mod death;
mod engines;
mod faults;
pub mod scenario;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_hub::EngineState;
use remuda_proto::monitor::Durability;
use remuda_proto::{EngineUuid, Identity, Instant, Key, MsgId, Session, SessionId};
use remuda_scheduler::{OutputRelay, Relay, Scheme};

use crate::checker::{BroadcastBook, ClientBook, Rules, TaskBook, Verdict, Violation};
use crate::client::ClientNode;
use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::engine::EngineNode;
use crate::journal::Journal;
use crate::log::{Line, Log};
use crate::network::{Channel, Network, Payload, Peer, Way};
use crate::parameters::{Kind, Parameters};
use crate::part::{Part, PartName};
use crate::store::StoreCore;
use crate::tamper::{BroadcastCore, HeartCore, HubCore, Tampering, TaskCore};
use death::Threads;

/// The key that signs everything.
const KEY: &str = "the-key-of-all-simulated-clusters";

/// How a run is watched.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The task scheduler is broken in this way.
    pub tampering: Option<Tampering>,
    /// Keep a line for everything that happens.
    pub record: bool,
    /// Let each machine check itself at each so many of its events.
    pub check_every: u64,
    /// Look at all tasks that wait at each so many events of the task scheduler.
    pub look_every: u64,
    /// A run that needs more steps than this does not settle, whatever the clock says.
    pub max_steps: u64,
    /// A thread that does this much in one turn is going in circles.
    pub max_turn: u64,
    /// Most records that are compared in the end with what clients got.
    pub compared: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tampering: None,
            record: false,
            check_every: 4,
            look_every: 1,
            max_steps: 3_000_000,
            max_turn: 100_000,
            compared: usize::MAX,
        }
    }
}

/// Something that is to happen.
#[derive(Debug)]
enum Happening {
    /// A message that was sent then arrives.
    Arrive { sent: Instant, peer: Peer, channel: Channel, way: Way, payload: Payload },
    /// A thread of the controller takes its turn.
    Turn(PartName),
    /// An engine starts.
    Start(Kind),
    /// An engine's deadline comes.
    EngineDeadline(u32),
    /// What an engine runs ends.
    Done { engine: u32, run: u64 },
    /// An engine hears what its threads have told it.
    EngineHears(u32),
    /// A frozen engine goes on.
    Thaw(u32),
    /// A slow engine is as fast as it was.
    Quicken(u32),
    /// A client hears at once again of what happens to engines.
    FreshNews(u32),
    /// With durability `async`: what the hub was told is on disk, unless the controller of that life died before.
    Commit { life: u32 },
    /// A client that read nothing reads again.
    Reads(u32),
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
    Settling {
        /// By then, or the run does not settle.
        by: Instant,
        /// How many tasks had been accepted when that was reckoned.
        accepted: usize,
    },
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
    /// How often which kinds of things were done, and went wrong.
    pub coverage: Coverage,
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
    hub: Part<HubCore>,
    heart: Part<HeartCore>,
    task: Part<TaskCore>,
    mux: Part<Relay>,
    control: Part<Relay>,
    output: Part<OutputRelay>,
    broadcast: Part<BroadcastCore>,
    store: Part<StoreCore>,
    /// All engines that ever were.
    engines: Vec<EngineNode>,
    /// The same by identity.
    by_identity: BTreeMap<Identity, u32>,
    /// The engines that the hub says are registered.
    registered: BTreeSet<EngineUuid>,
    /// The engines that the hub ever said have left.
    left: BTreeSet<EngineUuid>,
    clients: Vec<ClientNode>,
    /// What went over the sockets of the task scheduler.
    book: TaskBook,
    /// What went over those of the broadcast scheduler.
    broadcasts: BroadcastBook,
    /// What clients asked the hub to run again, and how often it has not done so yet.
    to_repeat: BTreeMap<MsgId, u64>,
    /// What clients sent and got.
    sent: ClientBook,
    /// What is on disk.
    journal: Journal,
    /// Whether the next commit is planned.
    commits: bool,
    /// How many controllers died.
    life: u32,
    /// The engines as the hub saved them last.
    saved: EngineState,
    dice: DiceBox,
    phase: Phase,
    /// Since when all threads of the controller run.
    runs_since: Instant,
    /// The last questions to the hub: for the queues, for the results.
    questions: Vec<MsgId>,
    /// The requests whose results the hub was asked for, in ascending order.
    compared: Vec<MsgId>,
    /// Somebody had records purged, so that they are not there to be compared.
    purged: bool,
    direct: u64,
    faults: u64,
    coverage: Coverage,
    steps: u64,
}

impl World {
    /// A cluster of this shape, at the beginning of time.
    pub fn new(mut parameters: Parameters, options: Options) -> Self {
        if options.tampering.is_some_and(|tampering| !tampering.is_of_records()) {
            parameters.durability = Durability::None;
        }
        let seed = parameters.seed;
        let (key, packer) = (Key::new(KEY), parameters.packer);
        let session =
            |name: &str| Session::new(SessionId::from(format!("controller-{name}")), "sim", key.clone(), packer, 1);
        let Threads { hub, store, heart, task, mux, control, output, broadcast } =
            Threads::new(&parameters, &options, Instant(0), 0);
        let rules = Rules {
            session: session("checker"),
            pure: parameters.scheme == Scheme::Pure,
            hwm: parameters.hwm,
            grace: parameters.grace,
            every: options.look_every.max(1),
        };
        let clients = (0..parameters.clients)
            .map(|number| ClientNode::new(number, key.clone(), packer, parameters.acts))
            .collect();
        let mut world = Self {
            clock: Clock::new(),
            log: Log::new(packer, options.record),
            network: Network::new(parameters.latency, Dice::new(seed, "network")),
            hub,
            store,
            heart,
            task,
            mux,
            control,
            output,
            broadcast,
            engines: Vec::new(),
            by_identity: BTreeMap::new(),
            registered: BTreeSet::new(),
            left: BTreeSet::new(),
            clients,
            book: TaskBook::new(rules),
            broadcasts: BroadcastBook::new(session("checker")),
            to_repeat: BTreeMap::new(),
            sent: ClientBook::new(session("checker")),
            journal: Journal::default(),
            commits: false,
            life: 0,
            saved: EngineState::default(),
            dice: DiceBox {
                workload: Dice::new(seed, "workload"),
                faults: Dice::new(seed, "faults"),
                engines: Dice::new(seed, "engines"),
                threads: Dice::new(seed, "threads"),
            },
            phase: Phase::Busy,
            runs_since: Instant(0),
            questions: Vec::new(),
            compared: Vec::new(),
            purged: false,
            direct: 0,
            faults: 0,
            coverage: Coverage::default(),
            steps: 0,
            parameters,
            options,
        };
        if world.parameters.durability == Durability::Sync {
            world.broadcasts.rest();
        }
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
        self.clock.pass_to(until);
        Ok(())
    }

    /// The next thing happens.
    ///
    /// # Errors
    /// What was wrong about it.
    pub fn step(&mut self) -> Verdict {
        self.steps += 1;
        if self.steps > self.options.max_steps {
            return Err(Violation::new("settled", format!("more than {} things happened", self.options.max_steps)));
        }
        let happening = self.clock.advance().expect("the heart beats for ever");
        let now = self.clock.instant();
        match happening {
            Happening::Arrive { sent, peer, channel, way, payload } => {
                if !self.network.arrives(now, sent, peer, channel, way) {
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
            Happening::EngineHears(engine) => self.engine_hears(engine),
            Happening::Thaw(engine) => self.thaw(engine),
            Happening::Quicken(engine) => self.engines[engine as usize].slowness = 1,
            Happening::FreshNews(client) => {
                self.network.lag(Peer::Client(client), Channel::Notification, Duration::ZERO);
            }
            Happening::Commit { life } => self.commit(life),
            Happening::Reads(client) => return self.client_reads(client),
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
        let sent = self.clock.instant();
        if let Some(at) = self.network.send(sent, peer, channel, way) {
            self.clock.schedule(at, Happening::Arrive { sent, peer, channel, way, payload });
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
            coverage: self.covered(),
            digest: self.log.digest(),
        }
    }

    fn covered(&self) -> Coverage {
        let mut coverage = self.coverage.clone();
        coverage.schemes.insert(self.parameters.scheme.name(), 1);
        coverage.add("broadcast answered in one", self.broadcasts.coalesced());
        coverage.add("broadcast answered one by one", self.broadcasts.relayed());
        coverage.merge(self.book.coverage());
        coverage
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
