//! The shape of a run, drawn from its seed: each run has its own, and some lack whole kinds of work or faults.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use remuda_proto::Packer;
use remuda_proto::monitor::Durability;
use remuda_scheduler::Scheme;

use crate::dice::Dice;

/// How long messages take.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// At least this long.
    pub low: Duration,
    /// At most this long, but for spikes.
    pub high: Duration,
    /// How many messages in a hundred take longer.
    pub spike_percent: u64,
    /// By how much at most.
    pub spike: Duration,
}

/// How many of the kinds of faults a run may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultLevel {
    /// None.
    None,
    /// Some, drawn from the seed.
    #[default]
    Some,
    /// All, and often.
    All,
}

impl FromStr for FaultLevel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(Self::None),
            "some" => Ok(Self::Some),
            "all" => Ok(Self::All),
            _ => Err(format!("unknown fault level `{name}`: use `none`, `some` or `all`")),
        }
    }
}

impl fmt::Display for FaultLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Some => "some",
            Self::All => "all",
        })
    }
}

/// What can go wrong outside the controller, and around its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An engine is killed; its nanny tells the hub.
    KillTold,
    /// An engine is killed together with its nanny: only its heart tells.
    KillSilent,
    /// An engine ends by itself, and says so.
    Leave,
    /// An engine stands still for a while, then goes on.
    Freeze,
    /// An engine is slow for a while.
    Slow,
    /// An engine starts.
    Join,
    /// A client hears late of what happens to engines.
    LateNews,
    /// The hub's thread does nothing for a while.
    HubLag,
    /// The task scheduler's thread does nothing for a while.
    TaskLag,
    /// The task records' thread does nothing for a while, as with a slow disk.
    StoreLag,
    /// The wall clock is set.
    ClockStep,
    /// An engine sends a reply again, or one that nobody asked for.
    StrayReply,
    /// An engine that is gone starts again under its old uuid.
    Return,
    /// A client goes, and waits for nothing any more.
    ClientGoes,
    /// All threads of the controller stand still, as under SIGSTOP, often for longer than hearts have to answer.
    ControllerStops,
    /// Every client sends many tasks at once.
    Burst,
    /// Many engines start at once.
    Storm,
    /// A client reads nothing for a while.
    Deaf,
    /// The connections of a client break, and are made again.
    ClientReconnects,
    /// The connections of an engine's heart break, and are made again.
    HeartReconnects,
    /// The controller is killed, and another one is started that takes over what is on disk.
    ControllerDies,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::KillTold,
        Self::KillSilent,
        Self::Leave,
        Self::Freeze,
        Self::Slow,
        Self::Join,
        Self::LateNews,
        Self::HubLag,
        Self::TaskLag,
        Self::StoreLag,
        Self::ClockStep,
        Self::StrayReply,
        Self::Return,
        Self::ClientGoes,
        Self::ControllerStops,
        Self::Burst,
        Self::Storm,
        Self::Deaf,
        Self::ClientReconnects,
        Self::HeartReconnects,
        Self::ControllerDies,
    ];
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// One task.
    Task,
    /// Many tasks at once.
    Map,
    /// A task after others.
    After,
    /// A task where others ran.
    Follow,
    /// A task for named engines.
    Targets,
    /// A direct request to an engine.
    Direct,
    /// A direct request to an engine that is not there.
    DirectNowhere,
    /// Tells the engines, and so the scheduler, not to run some tasks.
    Abort,
    /// A task whose metadata makes no sense.
    BadMetadata,
    /// A task that nobody can read.
    Garbage,
    /// A message that was sent before, byte for byte.
    Replay,
    /// Another task under an id that was used before.
    SameId,
    /// A question to the hub.
    Query,
    /// Tells an engine to end.
    Shutdown,
    /// A request to several engines at once, each of which answers for itself.
    Broadcast,
    /// The same, with all answers in one.
    Coalesce,
    /// Asks the hub to run requests once more.
    Resubmit,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Task,
        Self::Map,
        Self::After,
        Self::Follow,
        Self::Targets,
        Self::Direct,
        Self::DirectNowhere,
        Self::Abort,
        Self::BadMetadata,
        Self::Garbage,
        Self::Replay,
        Self::SameId,
        Self::Query,
        Self::Shutdown,
        Self::Broadcast,
        Self::Coalesce,
        Self::Resubmit,
    ];
}

/// What kind of engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A stock one: Python.
    Stock,
    /// A native one that runs programs and has all functions.
    Native,
    /// A native one that has only the first function.
    OneFunction,
}

/// The functions that native engines may have.
pub const FUNCTIONS: [&str; 3] = ["alpha", "beta", "gamma"];

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The seed that all of it is drawn from.
    pub seed: u64,
    /// How engines are chosen.
    pub scheme: Scheme,
    /// Most tasks on an engine; 0: no limit.
    pub hwm: u32,
    /// How long a task waits for the late reply of an engine that left.
    pub grace: Duration,
    /// Limit on pending tasks, beyond which clients are not read.
    pub max_pending_tasks: usize,
    /// Period of the heartbeat.
    pub heart_period: Duration,
    /// How many beats may be missed.
    pub max_misses: u32,
    /// How long a registration may take.
    pub registration_timeout: Duration,
    /// How far records are to be relied on; with none the controller never dies.
    pub durability: Durability,
    /// How long what engines of an earlier controller may have waits for them.
    pub reattach: Duration,
    /// Whether the hub keeps records.
    pub records: bool,
    /// How messages are packed.
    pub packer: Packer,
    /// How long messages take.
    pub latency: Latency,
    /// Engines at the start, and when they start.
    pub engines: Vec<(Kind, Duration)>,
    /// Kinds of engines that start later.
    pub kinds: Vec<(Kind, u64)>,
    /// How many clients.
    pub clients: u32,
    /// How much each client does.
    pub acts: u64,
    /// Fewest and most tasks of a map.
    pub map_size: (u64, u64),
    /// Tasks of a client after which it does nothing more.
    pub most_tasks: usize,
    /// Engines beyond which no fault starts one.
    pub max_engines: usize,
    /// What it does.
    pub act_weights: Vec<(Act, u64)>,
    /// Time between two things that a client does, on average.
    pub pause: Duration,
    /// How long tasks run, on average.
    pub task_time: Duration,
    /// How many tasks in a hundred fail when they run.
    pub fail_percent: u64,
    /// How many tasks in a hundred say that an engine lacks what they need.
    pub unmet_percent: u64,
    /// How many tasks in a hundred are native.
    pub native_percent: u64,
    /// How many of those tasks in a hundred take more or less than a slot.
    pub needs_percent: u64,
    /// How many tasks of the task scheduler in a hundred have a priority.
    pub priority_percent: u64,
    /// How many tasks in a hundred have retries.
    pub retry_percent: u64,
    /// How many tasks in a hundred have a timeout.
    pub timeout_percent: u64,
    /// What goes wrong.
    pub fault_weights: Vec<(Fault, u64)>,
    /// Time between two faults, on average.
    pub fault_pause: Duration,
    /// How many killed engines in a hundred come back under a new uuid.
    pub rejoin_percent: u64,
    /// When clients and faults stop.
    pub calm_at: Duration,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Parameters {
    /// The shape that this seed draws.
    pub fn draw(seed: u64, level: FaultLevel) -> Self {
        let mut dice = Dice::new(seed, "parameters");
        let schemes = [
            (Scheme::LeastLoad, 4),
            (Scheme::Lru, 2),
            (Scheme::PlainRandom, 1),
            (Scheme::TwoBin, 1),
            (Scheme::Weighted, 1),
            (Scheme::Pure, 1),
        ];
        let scheme = dice.weighted(&schemes).unwrap_or_default();
        let high = *dice.pick(&[ms(1), ms(2), ms(5), ms(20), ms(100)]);
        let spike_percent = *dice.pick(&[0, 0, 1, 5]);
        let latency = Latency { low: Duration::from_micros(30), high, spike_percent, spike: ms(500) };
        let kinds = {
            let kinds = dice.swarm(&[Kind::Stock, Kind::Native, Kind::OneFunction]);
            if kinds.iter().all(|(_, weight)| *weight == 0) { vec![(Kind::Stock, 1)] } else { kinds }
        };
        let calm_at = dice.duration(ms(500), ms(25_000));
        let most_engines = *dice.pick(&[1, 2, 4, 8, 12]);
        let engines = (0..dice.between(0, most_engines))
            .map(|_| {
                let kind = dice.weighted(&kinds).unwrap_or(Kind::Stock);
                let late = dice.percent(20);
                (kind, if late { dice.duration(ms(0), calm_at) } else { dice.duration(ms(0), ms(300)) })
            })
            .collect();
        let act_weights = {
            let weights = dice.swarm(&Act::ALL);
            let rare = |act| matches!(act, Act::Shutdown | Act::Replay | Act::SameId | Act::Garbage);
            weights
                .into_iter()
                .map(|(act, weight)| match act {
                    Act::Task => (act, weight * 4 + 1),
                    act if rare(act) => (act, weight.min(2)),
                    act => (act, weight),
                })
                .collect()
        };
        let fault_weights = match level {
            FaultLevel::None => Vec::new(),
            FaultLevel::Some => dice.swarm(&Fault::ALL),
            FaultLevel::All => Fault::ALL.iter().map(|fault| (*fault, dice.between(1, 5))).collect(),
        };
        let hwm = *dice.pick(&[0, 1, 1, 1, 2, 3, 10]);
        // Without logic there is no limit either.
        let hwm = if scheme == Scheme::Pure { 0 } else { hwm };
        let heart_period = *dice.pick(&[ms(300), ms(1000), ms(3000)]);
        let acts = *dice.pick(&[3, 10, 10, 25, 40]);
        // Over the whole time, so that there are engines to act on, or as fast as can be.
        let spread = calm_at / u32::try_from(acts).unwrap_or(1);
        let often =
            if level == FaultLevel::All { ms(200) } else { *dice.pick(&[ms(200), ms(1000), ms(4000), ms(15_000)]) };
        Self {
            seed,
            scheme,
            hwm,
            grace: *dice.pick(&[ms(0), ms(50), ms(1000), ms(5000)]),
            max_pending_tasks: if dice.percent(15) { 3 + dice.index(30) } else { 1_000_000 },
            heart_period,
            max_misses: *dice.pick(&[1, 2, 3, 10]),
            // A healthy engine takes two periods, and some.
            registration_timeout: *dice.pick(&[heart_period * 4, heart_period * 8, ms(30_000)]),
            durability: *dice.pick(&[Durability::None, Durability::Async, Durability::Sync]),
            reattach: *dice.pick(&[ms(500), ms(5000), ms(20_000)]),
            records: !dice.percent(10),
            packer: if dice.percent(20) { Packer::Msgpack } else { Packer::Json },
            latency,
            engines,
            kinds,
            clients: u32::try_from(dice.between(1, 4)).unwrap_or(1),
            acts,
            map_size: (2, 30),
            most_tasks: usize::MAX,
            max_engines: 16,
            act_weights,
            pause: *dice.pick(&[ms(0), ms(10), ms(100), spread, spread]),
            task_time: *dice.pick(&[ms(1), ms(20), ms(200), ms(1000)]),
            fail_percent: *dice.pick(&[0, 0, 10, 40]),
            unmet_percent: *dice.pick(&[0, 0, 10, 40]),
            native_percent: *dice.pick(&[0, 0, 30, 70, 100]),
            needs_percent: if scheme == Scheme::Pure { 0 } else { *dice.pick(&[0, 0, 20, 60]) },
            priority_percent: if scheme == Scheme::Pure { 0 } else { *dice.pick(&[0, 0, 10, 50]) },
            retry_percent: *dice.pick(&[0, 20, 60]),
            timeout_percent: *dice.pick(&[0, 0, 20, 50]),
            fault_weights,
            fault_pause: often,
            rejoin_percent: *dice.pick(&[0, 50, 100]),
            calm_at,
        }
    }

    /// Nothing happens by itself: no engines, one client that does nothing, no faults. For runs that are steered by hand.
    pub fn quiet() -> Self {
        Self {
            seed: 1,
            scheme: Scheme::LeastLoad,
            hwm: 1,
            grace: ms(5000),
            max_pending_tasks: 1_000_000,
            heart_period: ms(1000),
            max_misses: 3,
            registration_timeout: ms(30_000),
            durability: Durability::None,
            reattach: ms(60_000),
            records: true,
            packer: Packer::Json,
            latency: Latency { low: ms(1), high: ms(2), spike_percent: 0, spike: ms(0) },
            engines: Vec::new(),
            kinds: vec![(Kind::Stock, 1)],
            clients: 1,
            acts: 0,
            map_size: (2, 30),
            most_tasks: usize::MAX,
            max_engines: 16,
            act_weights: Vec::new(),
            pause: ms(0),
            task_time: ms(10),
            fail_percent: 0,
            unmet_percent: 0,
            native_percent: 0,
            needs_percent: 0,
            priority_percent: 0,
            retry_percent: 0,
            timeout_percent: 0,
            fault_weights: Vec::new(),
            fault_pause: ms(0),
            rejoin_percent: 0,
            calm_at: Duration::from_secs(24 * 3600),
        }
    }

    /// The longest time in which a ping is sent and answered, but for faults.
    pub fn round_trip(&self) -> Duration {
        let Latency { high, spike_percent, spike, .. } = self.latency;
        (high + if spike_percent > 0 { spike } else { Duration::ZERO }) * 2
    }

    /// How long a heart that stopped may go unnoticed at most.
    pub fn detection(&self) -> Duration {
        self.heart_period * (self.max_misses + 4)
    }
}

impl fmt::Display for Parameters {
    /// One `name = value` to a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = |f: &mut fmt::Formatter<'_>, name: &str, all: Vec<(String, u64)>| {
            let all: Vec<_> = all.iter().map(|(what, weight)| format!("{what} {weight}")).collect();
            writeln!(f, "  {name} = {}", all.join(", "))
        };
        writeln!(f, "  seed = {}", self.seed)?;
        writeln!(f, "  scheme = {}, hwm = {}, grace = {:?}", self.scheme, self.hwm, self.grace)?;
        let (pending, packer) = (self.max_pending_tasks, self.packer.name());
        writeln!(f, "  max_pending_tasks = {pending}, packer = {packer}, records = {}", self.records)?;
        writeln!(f, "  durability = {}, reattach = {:?}", self.durability.name(), self.reattach)?;
        writeln!(
            f,
            "  heart_period = {:?}, max_misses = {}, registration_timeout = {:?}",
            self.heart_period, self.max_misses, self.registration_timeout
        )?;
        let Latency { low, high, spike_percent, spike } = self.latency;
        writeln!(f, "  latency = {low:?} to {high:?}, {spike_percent} % up to {spike:?} more")?;
        let engines: Vec<_> = self.engines.iter().map(|(kind, at)| format!("{kind:?} at {at:?}")).collect();
        writeln!(f, "  engines = {}", engines.join(", "))?;
        weights(f, "later engines", self.kinds.iter().map(|(kind, weight)| (format!("{kind:?}"), *weight)).collect())?;
        writeln!(f, "  clients = {}, acts of each = {}, pause = {:?}", self.clients, self.acts, self.pause)?;
        weights(f, "acts", self.act_weights.iter().map(|(act, weight)| (format!("{act:?}"), *weight)).collect())?;
        writeln!(f, "  task_time = {:?}", self.task_time)?;
        writeln!(
            f,
            "  of 100 tasks: {} fail, {} are unmet, {} are native, {} have retries, {} have a timeout",
            self.fail_percent, self.unmet_percent, self.native_percent, self.retry_percent, self.timeout_percent
        )?;
        writeln!(
            f,
            "  {} have a priority; {} of the native ones have needs",
            self.priority_percent, self.needs_percent
        )?;
        let faults = self.fault_weights.iter().map(|(fault, weight)| (format!("{fault:?}"), *weight)).collect();
        weights(f, "faults", faults)?;
        writeln!(f, "  fault_pause = {:?}, rejoin = {} %", self.fault_pause, self.rejoin_percent)?;
        write!(f, "  calm_at = {:?}", self.calm_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_shape_each_time_and_other_seeds_draw_others() {
        let text = |seed| Parameters::draw(seed, FaultLevel::Some).to_string();
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn without_faults_nothing_goes_wrong() {
        assert!(Parameters::draw(1, FaultLevel::None).fault_weights.is_empty());
        assert_eq!(Parameters::draw(1, FaultLevel::All).fault_weights.len(), Fault::ALL.len());
    }
}
