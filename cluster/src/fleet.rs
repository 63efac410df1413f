//! The engines of a cluster: which were started, how each of them stands, and what is asked of them.
//!
//! Engines are started in *units*, each of which is a nanny with some engines. A [`Fleet`] decides; the supervisor of the
//! cluster does what it says, and tells it what the nannies say. Others ask by [`Command`]s.

mod elastic;
mod given_up;
mod resubmit;
mod roster;

pub use elastic::{Elastic, EngineLoad};
pub use roster::{EngineEntry, EngineStanding, Growth, Roster, UnitEntry, UnitJob, UnitStanding};

use std::collections::BTreeMap;

use remuda_proto::message::restart::Restart;
use remuda_proto::{EngineId, EngineUuid, Instant};
use serde::{Deserialize, Serialize};

use self::elastic::Idle;
use crate::launch::batch::Shape;
use crate::nanny::{End, Saying, Word};

/// A unit, by the order in which they were started.
pub type UnitId = u32;

/// What a cluster's supervisor is asked, as JSON on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// How everything stands: the answer is a [`Roster`].
    Status,
    /// Start so many more engines: the answer is the numbers of their units.
    Add {
        /// How many.
        engines: u32,
    },
    /// End these engines.
    End {
        /// Which.
        ids: Vec<EngineId>,
        /// Whether each is started again then, in its place.
        again: bool,
        /// Whether they end at once, with what they run; else when they have finished what they have.
        now: bool,
    },
    /// Send a signal to each engine.
    Signal {
        /// By number.
        signal: i32,
    },
}

/// What a command is answered with, as JSON on a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Command::Status`].
    Roster(Box<Roster>),
    /// To [`Command::Add`].
    Units(Vec<UnitId>),
    /// It is done, or will be.
    Done,
    /// It is not done, and nothing of it.
    Refused(String),
}

/// Who asked: a number of the supervisor's.
pub type Asker = u64;

/// What can happen to a fleet.
#[derive(Clone, Debug)]
pub enum Event {
    /// The controller runs: start units of so many engines each, which may be in several jobs.
    Begin {
        /// How many, by unit.
        units: Vec<u32>,
    },
    /// A nanny said something.
    Said {
        /// Whose.
        unit: UnitId,
        /// What.
        saying: Saying,
    },
    /// How the job stands in which a nanny is, or will be.
    Queued {
        /// Which.
        unit: UnitId,
        /// How.
        job: UnitJob,
    },
    /// A nanny has ended, or could not be started.
    UnitEnded {
        /// Which.
        unit: UnitId,
        /// How.
        end: End,
    },
    /// Somebody asks for something.
    Asked {
        /// Who.
        by: Asker,
        /// What.
        command: Command,
        /// The engines that are registered.
        registered: Vec<(EngineId, EngineUuid)>,
    },
    /// The answer to [`Effect::Drain`].
    Drained {
        /// Who asked for it; `None`: nobody.
        by: Option<Asker>,
        /// The engines.
        uuids: Vec<EngineUuid>,
        /// Why it is not done.
        refused: Option<String>,
    },
    /// What the controller has to do, now and then. Without it a fleet neither grows nor shrinks.
    Load {
        /// How many tasks wait for an engine.
        waiting: u64,
        /// The engines that are registered.
        engines: Vec<EngineLoad>,
    },
    /// All engines that were to be there at the start are.
    Ready,
    /// All is to end.
    Stop,
}

/// What a fleet asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a nanny with so many engines: again, if there was one of that number.
    StartUnit {
        /// Its number.
        unit: UnitId,
        /// How many.
        engines: u32,
    },
    /// Tell a nanny something.
    Tell {
        /// Which.
        unit: UnitId,
        /// What.
        word: Word,
    },
    /// Have the hub let these engines finish what they have and shut them down.
    Drain {
        /// Who asked for it; `None`: nobody.
        by: Option<Asker>,
        /// The engines.
        engines: Vec<(EngineId, EngineUuid)>,
    },
    /// Answer a command.
    Answer {
        /// Who asked.
        to: Asker,
        /// What.
        answer: Answer,
    },
    /// Kill these processes, each with its group, if the unit was on this machine: they are what a nanny left.
    Kill {
        /// Whose they were.
        unit: UnitId,
        /// The engines' processes.
        pids: Vec<i32>,
    },
    /// Which processes there are has changed.
    Save,
    /// An engine, or all of a unit, ended that should not have: for people.
    Complain(String),
}

/// Which engines there are, and what becomes of them.
#[derive(Debug, Default)]
pub struct Fleet {
    roster: Roster,
    /// Where each engine that runs is.
    places: BTreeMap<EngineUuid, (UnitId, u32)>,
    /// How many engines there are to be; `None`: those that were asked for.
    elastic: Option<Elastic>,
    /// The registered engines that have nothing to do.
    idle: BTreeMap<EngineUuid, Idle>,
    /// How engines are put in units that are jobs of a batch system, if they are.
    shape: Option<Shape>,
    /// Whether and when a unit that has ended is started again; `None`: never.
    restart: Option<Restart>,
    /// Engines that run and were registered once: since when they are not, if so. Of those of a supervisor that tells.
    missing: BTreeMap<EngineUuid, Option<Instant>>,
    /// Until when it does not grow by itself, since a unit failed before it had an engine; and how often that was in a row.
    hold: Option<Instant>,
    failures: u32,
    stopping: bool,
}

impl Fleet {
    /// A fleet that grows and shrinks by itself; `native` says whether its engines run programs, for who asks.
    pub fn elastic(elastic: Elastic, native: bool) -> Self {
        let grows = Some(Growth { max: elastic.max, native });
        Self { elastic: Some(elastic), roster: Roster { grows, ..Roster::default() }, ..Self::default() }
    }

    /// The same, with units that are jobs of this shape.
    #[must_use]
    pub fn in_jobs(mut self, shape: Shape) -> Self {
        self.shape = Some(shape);
        self
    }

    /// The same, with units that are started again when they end as this says: a nanny that was killed, a host that was
    /// away, a job whose time was over. Not one that never came so far.
    #[must_use]
    pub fn restarting(mut self, restart: Restart) -> Self {
        self.restart = Some(restart);
        self
    }

    /// How everything stands.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Applies an event, and appends what it calls for.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Begin { units } => {
                for engines in units.into_iter().filter(|engines| *engines > 0) {
                    self.start_units(now, engines, out);
                }
            }
            Event::Said { unit, saying } => self.said(unit, saying, out),
            Event::Queued { unit, job } => self.queued(unit, job),
            Event::UnitEnded { unit, end } => self.unit_ended(now, unit, end, out),
            Event::Asked { by, command, registered } => self.asked(now, by, command, &registered, out),
            Event::Drained { by, uuids, refused } => self.drained(by, &uuids, refused, out),
            Event::Load { waiting, engines } => self.adapt(now, waiting, &engines, out),
            Event::Ready => self.roster.ready = true,
            Event::Stop => {
                self.stopping = true;
                for (unit, of) in (0..).zip(&mut self.roster.units) {
                    match of.standing {
                        UnitStanding::Ended => {}
                        UnitStanding::BackingOff => of.standing = UnitStanding::Ended,
                        UnitStanding::Starting | UnitStanding::Running => {
                            out.push(Effect::Tell { unit, word: Word::Stop });
                        }
                    }
                }
            }
        }
    }

    /// How many units have not ended.
    pub fn units_left(&self) -> usize {
        self.roster.units.iter().filter(|unit| unit.standing != UnitStanding::Ended).count()
    }

    /// Starts so many engines: in one unit, or in jobs as their shape says.
    fn start_units(&mut self, now: Instant, engines: u32, out: &mut Vec<Effect>) -> Vec<UnitId> {
        let sizes = self.shape.map_or_else(|| vec![engines], |shape| resubmit::units(shape, engines));
        let start = |engines| {
            let unit = UnitId::try_from(self.roster.units.len()).unwrap_or(UnitId::MAX);
            self.roster.units.push(UnitEntry::new(unit, engines, now));
            out.push(Effect::StartUnit { unit, engines });
            unit
        };
        sizes.into_iter().map(start).collect()
    }

    fn said(&mut self, unit: UnitId, saying: Saying, out: &mut Vec<Effect>) {
        let Some(of) = self.roster.units.get_mut(unit as usize) else { return };
        match saying {
            Saying::Ready { host, pid, started } => {
                // A job may be started again by its system: of the engines that it had nothing was heard.
                for entry in of.engines.iter_mut().filter(|entry| entry.standing == EngineStanding::Running) {
                    self.places.remove(&entry.uuid);
                    entry.standing = EngineStanding::Ended;
                }
                (of.host, of.pid, of.started, of.standing) = (host, pid, started, UnitStanding::Running);
                if let Some(job) = &mut of.job {
                    job.waits = None;
                }
                (self.hold, self.failures) = (None, 0);
                out.push(Effect::Save);
            }
            Saying::Signalled { signal } => of.note_signal(signal),
            Saying::Started { place, pid, uuid, log, restarts } => {
                self.places.insert(uuid.clone(), (unit, place));
                let standing = EngineStanding::Running;
                of.put(EngineEntry {
                    place,
                    pid,
                    uuid,
                    log,
                    restarts,
                    standing,
                    last_end: None,
                    again_in_s: None,
                    is_ending: false,
                });
                out.push(Effect::Save);
            }
            Saying::Ended { place, uuid, end, again_in_s, restarts } => {
                self.places.remove(&uuid);
                let standing = if again_in_s.is_some() { EngineStanding::BackingOff } else { EngineStanding::Ended };
                let of_signal = of.signal;
                let entry = of.engine(place);
                if !end.ok && !self.stopping && !entry.is_ending && of_signal.is_none() {
                    let again = again_in_s.map_or_else(
                        || "it is not started again".to_owned(),
                        |pause| format!("it is started again in {pause} s"),
                    );
                    let log =
                        if entry.log.is_empty() { String::new() } else { format!("; its log is `{}`", entry.log) };
                    out.push(Effect::Complain(format!("an engine (process {}) {}: {again}{log}", entry.pid, end.how)));
                }
                (entry.standing, entry.restarts, entry.again_in_s) = (standing, restarts, again_in_s);
                (entry.last_end, entry.is_ending) = (Some(end), false);
                out.push(Effect::Save);
            }
            Saying::ControllerLost { silence_s } => {
                out.push(Effect::Complain(format!(
                    "the controller was silent for {silence_s:.0} s: engines are ended"
                )));
            }
        }
    }

    fn unit_ended(&mut self, now: Instant, unit: UnitId, mut end: End, out: &mut Vec<Effect>) {
        let again = self.again(now, unit, &mut end);
        let Some(of) = self.roster.units.get_mut(unit as usize) else { return };
        of.standing = if again.is_some() { UnitStanding::BackingOff } else { UnitStanding::Ended };
        let is_running = |entry: &&EngineEntry| entry.standing == EngineStanding::Running;
        let pids: Vec<i32> = of.engines.iter().filter(is_running).map(|entry| entry.pid).collect();
        let left = pids.len();
        if !pids.is_empty() {
            out.push(Effect::Kill { unit, pids });
        }
        for entry in &mut of.engines {
            if entry.standing != EngineStanding::Ended {
                self.places.remove(&entry.uuid);
                entry.standing = EngineStanding::Ended;
                entry.again_in_s = None;
            }
        }
        let is_news = left > 0 || of.signal.is_some() || of.engines.iter().all(|entry| entry.last_end.is_none());
        if !end.ok && !self.stopping && is_news {
            out.push(Effect::Complain(of.complaint(&end, again)));
        }
        (of.end, of.signal) = (Some(end), None);
        out.push(Effect::Save);
    }

    fn asked(
        &mut self,
        now: Instant,
        by: Asker,
        command: Command,
        registered: &[(EngineId, EngineUuid)],
        out: &mut Vec<Effect>,
    ) {
        let answer = |answer| Effect::Answer { to: by, answer };
        if self.stopping && command != Command::Status {
            return out.push(answer(Answer::Refused("the cluster is being stopped".to_owned())));
        }
        match command {
            Command::Status => out.push(answer(Answer::Roster(Box::new(self.roster.clone())))),
            Command::Add { engines: 0 } => out.push(answer(Answer::Done)),
            Command::Add { engines } => {
                let units = self.start_units(now, engines, out);
                out.push(answer(Answer::Units(units)));
            }
            Command::Signal { signal } => {
                for (unit, of) in (0..).zip(&self.roster.units) {
                    if of.standing == UnitStanding::Running {
                        out.push(Effect::Tell { unit, word: Word::Signal { signal } });
                    }
                }
                out.push(answer(Answer::Done));
            }
            Command::End { ids, again, now } => match self.find(&ids, registered) {
                Err(reason) => out.push(answer(Answer::Refused(reason))),
                Ok(engines) => {
                    self.intend(&engines, again, now, out);
                    if now || engines.is_empty() {
                        out.push(answer(Answer::Done));
                    } else {
                        out.push(Effect::Drain { by: Some(by), engines });
                    }
                }
            },
        }
    }

    /// The uuids of these engines, all of which have to be there and in our hands.
    fn find(
        &self,
        ids: &[EngineId],
        registered: &[(EngineId, EngineUuid)],
    ) -> Result<Vec<(EngineId, EngineUuid)>, String> {
        let mut found = Vec::new();
        for id in ids {
            let Some((_, uuid)) = registered.iter().find(|(other, _)| other == id) else {
                let there: Vec<String> = registered.iter().map(|(id, _)| id.to_string()).collect();
                let there =
                    if there.is_empty() { "none is".to_owned() } else { format!("these are: {}", there.join(", ")) };
                return Err(format!("no engine {id} is registered; {there}"));
            };
            if !self.places.contains_key(uuid) {
                return Err(format!(
                    "engine {id} was not started by this cluster's supervisor; `remuda cluster engines drain {id} --shutdown` \
                     ends any engine"
                ));
            }
            found.push((*id, uuid.clone()));
        }
        Ok(found)
    }

    /// Tells the nannies what is to become of these engines when they end, and with `now` to end them.
    fn intend(&mut self, engines: &[(EngineId, EngineUuid)], again: bool, now: bool, out: &mut Vec<Effect>) {
        let mut by_unit: BTreeMap<UnitId, Vec<EngineUuid>> = BTreeMap::new();
        for (_, uuid) in engines {
            if let Some((unit, place)) = self.places.get(uuid) {
                by_unit.entry(*unit).or_default().push(uuid.clone());
                self.roster.units[*unit as usize].engine(*place).is_ending = true;
            }
        }
        let tell = |(unit, uuids)| Effect::Tell { unit, word: Word::End { uuids, again, now } };
        out.extend(by_unit.into_iter().map(tell));
    }

    fn drained(&mut self, by: Option<Asker>, uuids: &[EngineUuid], refused: Option<String>, out: &mut Vec<Effect>) {
        if refused.is_some() {
            self.keep(uuids, out);
        }
        if let Some(to) = by {
            let answer = refused.map_or(Answer::Done, Answer::Refused);
            out.push(Effect::Answer { to, answer });
        }
    }
}

#[cfg(test)]
mod tests;
