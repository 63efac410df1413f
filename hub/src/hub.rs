//! The machine that registers engines, tracks tasks and answers queries (`controller/hub.py`).

use std::time::Duration;

use remuda_proto::message::content::ControllerInfo;
use remuda_proto::message::native::Capability;
use remuda_proto::{Body, EngineId, EngineUuid, Identity, Idents, Refusal, monitor};

/// How the hub behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Period of the heartbeat in milliseconds, as engines are told.
    pub heart_period_ms: u64,
    /// How long an engine may take from its registration to its first reported beat, and how long after an engine
    /// left its unanswered direct requests are given up. See [`Config::with_heart_period`].
    pub registration_timeout: Duration,
    /// Where task records are kept.
    pub store: StoreKind,
    /// What is returned as `connection_info` when an engine registers: its connection file again.
    pub engine_connection: serde_json::Value,
    /// What the controller says of itself to who asks with the key `remuda`.
    pub controller: ControllerInfo,
}

impl Config {
    /// The stock behaviour at this period of the heartbeat: `max(30 s, period in ms / 100 as seconds)` to register
    /// (`controller/hub.py: registration_timeout`), and records in memory.
    pub fn with_heart_period(period: Duration) -> Self {
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self {
            heart_period_ms: period_ms,
            registration_timeout: Duration::from_secs((period_ms / 100).max(30)),
            store: StoreKind::default(),
            engine_connection: serde_json::Value::Object(serde_json::Map::new()),
            controller: ControllerInfo::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::with_heart_period(Duration::from_secs(3))
    }
}

/// Where task records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// In memory, up to these limits.
    Memory(Limits),
    /// Nowhere (`NoDB`).
    None,
}

impl Default for StoreKind {
    fn default() -> Self {
        Self::Memory(Limits::default())
    }
}

/// What the records in memory may take (`controller/dictdb.py: DictDB`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most records. Beyond it, `cull_fraction` of this number of the oldest are dropped at once.
    pub records: usize,
    /// Most bytes of messages and output. Beyond it, the oldest are dropped down to `1 - cull_fraction` of it.
    pub size_bytes: usize,
    /// How much is dropped when a limit is passed, from 0 to 1.
    pub cull_fraction: f64,
}

impl Eq for Limits {}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 1024, size_bytes: 1 << 30, cull_fraction: 0.1 }
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
    Monitor(monitor::Monitor),
    /// The heart monitor: these hearts beat.
    NewHearts(Vec<EngineUuid>),
    /// The heart monitor: these hearts stopped.
    StoppedHearts(Vec<EngineUuid>),
    /// The process is told to end.
    Stop,
}

/// What the hub asks for. Where one event calls for several, they come in the order of these variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
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
    /// Answer a query.
    Reply {
        /// The routing frames of the query.
        to: Idents,
        /// The answer.
        body: Body,
    },
    /// Publish a notification, without topic.
    Notify(Body),
    /// Something had no effect.
    Refused {
        /// Who sent it, if that is known.
        from: Option<Identity>,
        /// Why.
        refusal: Refusal,
    },
    /// End the process, with status 0.
    Exit,
}
