//! How the engines of a cluster stand, as it is told and shown.

use remuda_proto::{EngineUuid, Instant};
use serde::{Deserialize, Serialize};

use super::UnitId;
use crate::nanny::End;

/// All units, in the order in which they were started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    /// Whether all engines that were to be there at the start were there once.
    #[serde(default)]
    pub ready: bool,
    /// How far it grows by itself; `None`: it does not.
    #[serde(default)]
    pub grows: Option<Growth>,
    /// The units.
    pub units: Vec<UnitEntry>,
}

/// How far a cluster grows when there is work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// As many engines as this.
    pub max: u32,
    /// Whether they are native ones, which run programs.
    pub native: bool,
}

impl Roster {
    /// The engines whose processes run.
    pub fn running(&self) -> impl Iterator<Item = &EngineEntry> {
        let engines = self.units.iter().flat_map(|unit| &unit.engines);
        engines.filter(|engine| engine.standing == EngineStanding::Running)
    }

    /// How many engines are to come in jobs that wait in their queue, and why the first of these does; `None`: no job waits.
    pub fn waiting(&self) -> Option<(u32, &str)> {
        let waiting = self.units.iter().filter(|unit| unit.standing == UnitStanding::Starting).filter_map(|unit| {
            let job = unit.job.as_ref().filter(|job| !job.id.is_empty())?;
            Some((unit.wanted, job.waits.as_deref()?))
        });
        waiting.reduce(|(engines, reason), (more, _)| (engines + more, reason))
    }

    /// The first engine that failed, or the first unit that did before it had any: for people who wait for them.
    pub fn failure(&self) -> Option<String> {
        let with_tail = |what: String, end: &End| {
            let tail = if end.tail.is_empty() { String::new() } else { format!("; its log ends with:\n{}", end.tail) };
            format!("{what} {}{tail}", end.how)
        };
        self.units.iter().find_map(|unit| {
            let failed = |end: &&End| !end.ok;
            let ends = unit.engines.iter().filter_map(|entry| Some((entry, entry.last_end.as_ref().filter(failed)?)));
            let engine = ends.map(|(entry, end)| {
                let log = if entry.log.is_empty() { String::new() } else { format!(", log `{}`,", entry.log) };
                with_tail(format!("an engine (process {}{log})", entry.pid), end)
            });
            let what = if unit.job.is_some() { "the job of the engines" } else { "the nanny of the engines" };
            let nanny = unit.end.as_ref().filter(failed).map(|end| with_tail(what.to_owned(), end));
            engine.chain(nanny).next()
        })
    }
}

/// A nanny and its engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitEntry {
    /// Its number.
    pub unit: UnitId,
    /// How many engines it was to start.
    pub wanted: u32,
    /// The host it runs on; empty while that is not known.
    pub host: String,
    /// Its process there; 0 while that is not known.
    pub pid: i32,
    /// When that started, in clock ticks since the machine did.
    pub started: Option<u64>,
    /// How it stands.
    pub standing: UnitStanding,
    /// How it ended.
    pub end: Option<End>,
    /// Its engines, by place; those that never started are not among them.
    pub engines: Vec<EngineEntry>,
    /// The job that it is in, if it is in one.
    #[serde(default)]
    pub job: Option<UnitJob>,
    /// How often it was submitted again.
    #[serde(default)]
    pub restarts: u32,
    /// The same, since it last ran well.
    #[serde(skip)]
    pub(super) quick: u32,
    /// When it was started last.
    #[serde(skip)]
    pub(super) since: Instant,
    /// When it is started again, while it is backing off.
    #[serde(skip)]
    pub(super) again_at: Option<Instant>,
    /// The signal that asked the nanny to end, until it has, and how many engines were to stay then.
    #[serde(skip)]
    pub(super) signal: Option<(i32, u32)>,
}

/// The job of a batch system in which a unit is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitJob {
    /// Its id and that of the array's element, as the system writes them; empty: it has none yet.
    pub id: String,
    /// Why it does not run, in the system's words, which may be none; `None`: it runs.
    pub waits: Option<String>,
    /// On which host; empty: it is not known.
    pub host: String,
    /// The file that it prints to.
    pub output: String,
}

/// How a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitStanding {
    /// It was asked for, and has not said anything yet.
    Starting,
    /// It runs.
    Running,
    /// It has ended, and is started again soon.
    BackingOff,
    /// It has ended, with all its engines.
    Ended,
}

/// An engine, or the last one in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineEntry {
    /// Which of its unit's, from 0.
    pub place: u32,
    /// Its process.
    pub pid: i32,
    /// Its uuid.
    pub uuid: EngineUuid,
    /// Where what it prints goes.
    pub log: String,
    /// How often one was started again in this place.
    pub restarts: u32,
    /// How it stands.
    pub standing: EngineStanding,
    /// How the one before it ended, or this one, if it has.
    pub last_end: Option<End>,
    /// In how many seconds another one is started, at the time when this one ended.
    pub again_in_s: Option<f64>,
    /// Whether somebody asked for its end.
    #[serde(default)]
    pub is_ending: bool,
}

/// How an engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineStanding {
    /// Its process runs; whether it is registered the hub knows.
    Running,
    /// It ended, and another one is started soon.
    BackingOff,
    /// It ended, and nothing comes after it.
    Ended,
}

impl UnitEntry {
    pub(super) fn new(unit: UnitId, wanted: u32, now: Instant) -> Self {
        Self {
            unit,
            wanted,
            host: String::new(),
            pid: 0,
            started: None,
            standing: UnitStanding::Starting,
            end: None,
            engines: Vec::new(),
            job: None,
            restarts: 0,
            quick: 0,
            since: now,
            again_at: None,
            signal: None,
        }
    }

    /// The engine in this place, or what there is to say of one that never started.
    pub(super) fn engine(&mut self, place: u32) -> &mut EngineEntry {
        let at = self.engines.partition_point(|entry| entry.place < place);
        if self.engines.get(at).is_none_or(|entry| entry.place != place) {
            self.engines.insert(at, EngineEntry::never_started(place));
        }
        &mut self.engines[at]
    }

    /// An engine has started in its place.
    pub(super) fn put(&mut self, engine: EngineEntry) {
        let entry = self.engine(engine.place);
        let last_end = entry.last_end.take();
        *entry = EngineEntry { last_end, ..engine };
    }
}

impl EngineEntry {
    fn never_started(place: u32) -> Self {
        Self {
            place,
            pid: 0,
            uuid: EngineUuid::from(""),
            log: String::new(),
            restarts: 0,
            standing: EngineStanding::Ended,
            last_end: None,
            again_in_s: None,
            is_ending: false,
        }
    }
}
