//! Units of a cluster as jobs: which job has which, and how each stands by what the batch system and the nannies say.
//!
//! A nanny in a job is known by its name: the job's tag, and in an array the number of its element. Which units there are, and which are
//! started again, is the [`Fleet`](crate::fleet::Fleet)'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_proto::Instant;

use crate::fleet::UnitId;
use crate::launch::batch::{Job, JobEnd, JobState, JobStatus};
use crate::nanny::{End, NANNY_STOP_TIMEOUT};

/// How long after something has changed the system is asked how jobs stand.
const SOON: Duration = Duration::from_millis(500);
/// How often it is asked while something is awaited of it.
const POLL: Duration = Duration::from_secs(3);
/// How often it is asked while all jobs run and have a line to their nanny.
const POLL_QUIET: Duration = Duration::from_secs(15);
/// How often at least a system is asked that does not answer.
const MAX_POLL: Duration = Duration::from_secs(60);
/// How long the system may take to say how a job ended whose nanny has said that it ends.
const VERDICT: Duration = Duration::from_secs(30);
/// How long nannies may take at the end, before their jobs are cancelled.
const WORDS: Duration = NANNY_STOP_TIMEOUT.saturating_add(Duration::from_secs(3));
/// How long the end of all jobs may take, before they are left to themselves.
const GIVE_UP: Duration = Duration::from_secs(45);

/// What can happen to jobs.
#[derive(Clone, Debug)]
pub enum Event {
    /// Start these units, each with so many engines.
    Start {
        /// Which.
        units: Vec<(UnitId, u32)>,
    },
    /// The answer to [`Effect::Submit`].
    Submitted {
        /// Which.
        ticket: u32,
        /// The job, or what the system says.
        job: Result<Job, String>,
    },
    /// The answer to [`Effect::Poll`].
    Polled {
        /// How the jobs stand, or why that cannot be told.
        statuses: Result<Vec<JobStatus>, String>,
    },
    /// A unit's nanny has come to its line.
    Joined {
        /// Which.
        unit: UnitId,
    },
    /// A unit's nanny ends.
    Bye {
        /// Which.
        unit: UnitId,
        /// With this status.
        status: u8,
    },
    /// A job that was to be cancelled is not.
    NotCancelled {
        /// Why.
        reason: String,
    },
    /// All jobs are to end. The nannies that have come were told.
    Stop,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Submit a job.
    Submit {
        /// Its number here.
        ticket: u32,
        /// The name of its nanny, or the beginning of the names.
        tag: String,
        /// How many engines it has, or each of its elements.
        engines: u32,
        /// How many elements; 0: it is no array.
        elements: u32,
    },
    /// A nanny of this name may come.
    Expect {
        /// Its name.
        name: String,
    },
    /// Nothing is to be heard of this nanny any more.
    Forget {
        /// Its name.
        name: String,
    },
    /// Ask how these jobs stand.
    Poll(Vec<Job>),
    /// Cancel a job, or one element of it.
    Cancel {
        /// Which.
        job: Job,
        /// Which element; `None`: all.
        element: Option<u32>,
    },
    /// A unit stands like this.
    Stands {
        /// Which.
        unit: UnitId,
        /// The number of its submission.
        ticket: u32,
        /// Its job; `None`: it is being submitted.
        job: Option<Job>,
        /// Which element of it.
        element: Option<u32>,
        /// Why it does not run, in the system's words, which may be none; `None`: it runs.
        waits: Option<String>,
        /// On which host; empty: it is not known.
        host: String,
    },
    /// A unit has ended.
    Ended {
        /// Which.
        unit: UnitId,
        /// The number of its submission.
        ticket: u32,
        /// Its job, if it had one.
        job: Option<Job>,
        /// Which element of it.
        element: Option<u32>,
        /// How.
        end: End,
    },
    /// For people.
    Complain(String),
}

/// How a member of a lot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// As the system says: it waits, or runs.
    Listed(JobState),
    /// Its nanny ends with this status; the system has until then to say how the job ended.
    Bye { status: u8, until: Instant },
}

/// A unit in its job.
#[derive(Clone, Debug)]
struct Member {
    unit: UnitId,
    ticket: u32,
    element: Option<u32>,
    phase: Phase,
    /// Whether its nanny has come.
    joined: bool,
    /// How often the system did not know it, in a row.
    forgotten: u32,
    /// Whether the system has said that it ended.
    ended: bool,
    /// Whether it was told that the unit ended.
    told: bool,
}

/// Units that were submitted together.
#[derive(Clone, Debug)]
struct Lot {
    tag: String,
    /// `None`: the system has not answered.
    job: Option<Job>,
    members: Vec<Member>,
    /// When it was cancelled as a whole, last.
    cancelled: Option<Instant>,
}

impl Lot {
    fn name(&self, member: &Member) -> String {
        name_of(&self.tag, member.element)
    }
}

/// The name of the nanny in a job, or in an element of one.
fn name_of(tag: &str, element: Option<u32>) -> String {
    element.map_or_else(|| tag.to_owned(), |element| format!("{tag}-{element}"))
}

/// How jobs are made of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrays {
    /// Each unit is a job of its own.
    Never,
    /// Units that begin together and have as many engines are one job, if there are several.
    Several,
    /// The same, and one alone is an array, too.
    Always,
}

/// The jobs of a cluster.
#[derive(Debug)]
pub struct Jobs {
    tag: String,
    arrays: Arrays,
    /// The number of an array's first element.
    first: u32,
    lots: BTreeMap<u32, Lot>,
    next: u32,
    /// When the system is asked next; `None`: it is being asked, or there is nothing to ask for.
    poll_at: Option<Instant>,
    polling: bool,
    /// How often it did not answer, in a row.
    unanswered: u32,
    stopping: Option<Instant>,
}

impl Jobs {
    /// Without any. All names begin with `tag`, which no other cluster has.
    pub fn new(tag: String, arrays: Arrays, first_element: u32) -> Self {
        Self {
            tag,
            arrays,
            first: first_element,
            lots: BTreeMap::new(),
            next: 1,
            poll_at: None,
            polling: false,
            unanswered: 0,
            stopping: None,
        }
    }

    /// Whether there is no job of which anything is awaited.
    pub fn is_empty(&self) -> bool {
        self.lots.is_empty()
    }

    /// The jobs that the system has, or may have.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.lots.values().filter_map(|lot| lot.job.as_ref())
    }

    /// The name of a unit's nanny.
    pub fn name(&self, unit: UnitId) -> Option<String> {
        let (lot, member) = self.find(unit)?;
        Some(lot.name(member))
    }

    /// The unit whose nanny has this name.
    pub fn unit(&self, name: &str) -> Option<UnitId> {
        let is_it = |lot: &&Lot| name.starts_with(&lot.tag);
        let members = self.lots.values().filter(is_it).flat_map(|lot| lot.members.iter().map(move |it| (lot, it)));
        members.into_iter().find(|(lot, member)| lot.name(member) == name).map(|(_, member)| member.unit)
    }

    fn find(&self, unit: UnitId) -> Option<(&Lot, &Member)> {
        let members = self.lots.values().flat_map(|lot| lot.members.iter().map(move |member| (lot, member)));
        members.into_iter().find(|(_, member)| member.unit == unit && !member.told)
    }

    /// Applies an event, and appends what it calls for.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Start { units } => self.start(&units, out),
            Event::Submitted { ticket, job } => self.submitted(now, ticket, job, out),
            Event::Polled { statuses: Ok(statuses) } => self.polled(now, &statuses, out),
            Event::Polled { statuses: Err(reason) } => {
                if self.unanswered == 0 {
                    out.push(Effect::Complain(format!("{reason}; it is asked again")));
                }
                self.unanswered += 1;
                self.polling = false;
                let pause = 1_u32.checked_shl(self.unanswered).and_then(|factor| POLL.checked_mul(factor));
                self.poll_at = Some(now + pause.unwrap_or(MAX_POLL).min(MAX_POLL));
            }
            Event::Joined { unit } => {
                if let Some(member) = self.member(unit) {
                    member.joined = true;
                    if self.stopping.is_some() {
                        self.poll_soon(now);
                    }
                }
            }
            Event::Bye { unit, status } => self.bye(now, unit, status, out),
            Event::NotCancelled { reason } => out.push(Effect::Complain(reason)),
            Event::Stop => self.stop(now, out),
        }
        self.tidy();
    }

    /// Acts on what is due. It is to be called several times in a second.
    pub fn look(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll_at = None;
            let jobs: Vec<Job> = self.jobs().cloned().collect();
            if !jobs.is_empty() {
                self.polling = true;
                out.push(Effect::Poll(jobs));
            }
        }
        let stopping = self.stopping;
        for lot in self.lots.values_mut() {
            let overdue = |member: &&mut Member| {
                let until = matches!(member.phase, Phase::Bye { until, .. } if until <= now);
                until && !member.told
            };
            let (job, tag) = (lot.job.clone(), lot.tag.clone());
            for member in lot.members.iter_mut().filter(overdue) {
                end(member, job.clone(), &tag, &JobEnd::Forgotten, out);
            }
            if stopping.is_some_and(|since| since + WORDS <= now)
                && lot.cancelled.is_none()
                && let Some(job) = job
            {
                lot.cancelled = Some(now);
                out.push(Effect::Cancel { job, element: None });
            }
        }
        if stopping.is_some_and(|since| since + GIVE_UP <= now) {
            for lot in std::mem::take(&mut self.lots).into_values() {
                let id = lot.job.as_ref().map_or("that is being submitted", |job| &job.id);
                out.push(Effect::Complain(format!("job {id} has not ended: see that it does")));
                for mut member in lot.members.into_iter().filter(|member| !member.told) {
                    end(&mut member, lot.job.clone(), &lot.tag, &JobEnd::Forgotten, out);
                }
            }
        }
        self.tidy();
    }

    fn member(&mut self, unit: UnitId) -> Option<&mut Member> {
        let mut members = self.lots.values_mut().flat_map(|lot| &mut lot.members);
        members.find(|member| member.unit == unit && !member.told)
    }

    fn start(&mut self, units: &[(UnitId, u32)], out: &mut Vec<Effect>) {
        let mut by_size: BTreeMap<u32, Vec<UnitId>> = BTreeMap::new();
        for (unit, engines) in units {
            by_size.entry(*engines).or_default().push(*unit);
        }
        for (engines, units) in by_size.into_iter().rev() {
            let is_array = self.arrays == Arrays::Always || self.arrays == Arrays::Several && units.len() > 1;
            if is_array {
                self.submit(engines, &units, true, out);
            } else {
                units.iter().for_each(|unit| self.submit(engines, &[*unit], false, out));
            }
        }
    }

    fn submit(&mut self, engines: u32, units: &[UnitId], is_array: bool, out: &mut Vec<Effect>) {
        let ticket = self.next;
        self.next += 1;
        let waits = || Phase::Listed(JobState::Pending { reason: String::new() });
        let member = |(element, unit): (u32, &UnitId)| Member {
            unit: *unit,
            ticket,
            element: is_array.then_some(element),
            phase: waits(),
            joined: false,
            forgotten: 0,
            ended: false,
            told: false,
        };
        let members: Vec<Member> = (self.first..).zip(units).map(member).collect();
        let lot = Lot { tag: format!("{}-{ticket}", self.tag), job: None, members, cancelled: None };
        for member in &lot.members {
            out.push(Effect::Expect { name: lot.name(member) });
            let (unit, element, waits) = (member.unit, member.element, Some("being submitted".to_owned()));
            out.push(Effect::Stands { unit, ticket, job: None, element, waits, host: String::new() });
        }
        let elements = if is_array { u32::try_from(units.len()).unwrap_or(u32::MAX) } else { 0 };
        out.push(Effect::Submit { ticket, tag: lot.tag.clone(), engines, elements });
        self.lots.insert(ticket, lot);
    }

    fn submitted(&mut self, now: Instant, ticket: u32, job: Result<Job, String>, out: &mut Vec<Effect>) {
        let Some(lot) = self.lots.get_mut(&ticket) else {
            // It was given up meanwhile.
            return out.extend(job.ok().map(|job| Effect::Cancel { job, element: None }));
        };
        match job {
            Ok(job) => {
                for member in &lot.members {
                    let (unit, element, waits) = (member.unit, member.element, Some(String::new()));
                    let job = Some(job.clone());
                    out.push(Effect::Stands { unit, ticket, job, element, waits, host: String::new() });
                }
                lot.job = Some(job.clone());
                if self.stopping.is_some() {
                    lot.cancelled = Some(now);
                    out.push(Effect::Cancel { job, element: None });
                }
                self.poll_soon(now);
            }
            Err(reason) => {
                let tag = lot.tag.clone();
                for mut member in self.lots.remove(&ticket).into_iter().flat_map(|lot| lot.members) {
                    let (unit, element) = (member.unit, member.element);
                    member.told = true;
                    out.push(Effect::Forget { name: name_of(&tag, element) });
                    let end = End::failed(format!("was not accepted: {reason}"));
                    out.push(Effect::Ended { unit, ticket, job: None, element, end });
                }
            }
        }
    }

    fn polled(&mut self, now: Instant, statuses: &[JobStatus], out: &mut Vec<Effect>) {
        self.polling = false;
        if std::mem::take(&mut self.unanswered) > 0 {
            out.push(Effect::Complain("the batch system answers again".to_owned()));
        }
        for lot in self.lots.values_mut() {
            let Some(job) = lot.job.clone() else { continue };
            for status in statuses.iter().filter(|status| status.job == job.id) {
                let is_it = |member: &&mut Member| member.element == status.element && !member.ended;
                if let Some(member) = lot.members.iter_mut().find(is_it) {
                    listed(member, &job, &lot.tag, &status.state, out);
                }
            }
        }
        let pause = match self.stopping {
            Some(_) => SOON,
            None if self.expects() => POLL,
            None => POLL_QUIET,
        };
        self.poll_at = Some(now + pause);
    }

    /// Whether something is awaited of the system.
    fn expects(&self) -> bool {
        let mut members = self.lots.values().flat_map(|lot| &lot.members);
        members.any(|member| !member.joined || member.forgotten > 0 || matches!(member.phase, Phase::Bye { .. }))
    }

    fn poll_soon(&mut self, now: Instant) {
        if !self.polling && self.unanswered == 0 {
            let soon = now + SOON;
            self.poll_at = Some(self.poll_at.map_or(soon, |at| at.min(soon)));
        }
    }

    fn bye(&mut self, now: Instant, unit: UnitId, status: u8, out: &mut Vec<Effect>) {
        let stopping = self.stopping.is_some();
        for lot in self.lots.values_mut() {
            let Some(member) = lot.members.iter_mut().find(|member| member.unit == unit && !member.told) else {
                continue;
            };
            member.phase = Phase::Bye { status, until: now + VERDICT };
            // The system need not be asked about an end that was asked for.
            if stopping {
                end(member, lot.job.clone(), &lot.tag, &JobEnd::Forgotten, out);
            }
            break;
        }
        self.poll_soon(now);
    }

    fn stop(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.stopping = Some(now);
        for lot in self.lots.values_mut() {
            let Some(job) = lot.job.clone() else { continue };
            let absent: Vec<Option<u32>> = lot
                .members
                .iter()
                .filter(|member| !member.joined && !member.ended)
                .map(|member| member.element)
                .collect();
            if absent.len() == lot.members.len() {
                lot.cancelled = Some(now);
                out.push(Effect::Cancel { job, element: None });
            } else {
                out.extend(absent.into_iter().map(|element| Effect::Cancel { job: job.clone(), element }));
            }
        }
        self.poll_soon(now);
    }

    /// Forgets what is over.
    fn tidy(&mut self) {
        self.lots.retain(|_, lot| lot.members.iter().any(|member| !member.told || !member.ended));
        if self.lots.is_empty() {
            self.poll_at = None;
        }
    }
}

/// The system says how a unit's job stands.
fn listed(member: &mut Member, job: &Job, tag: &str, state: &JobState, out: &mut Vec<Effect>) {
    if let JobState::Ended(how) = state {
        member.forgotten += u32::from(*how == JobEnd::Forgotten);
        if *how == JobEnd::Forgotten && member.forgotten < 2 {
            return;
        }
        member.ended = true;
        if !member.told {
            end(member, Some(job.clone()), tag, how, out);
        }
        return;
    }
    member.forgotten = 0;
    if matches!(member.phase, Phase::Bye { .. }) || member.phase == Phase::Listed(state.clone()) || member.told {
        return;
    }
    member.phase = Phase::Listed(state.clone());
    let (waits, host) = match state {
        JobState::Pending { reason } => (Some(reason.clone()), String::new()),
        JobState::Running { host } => (None, host.clone()),
        JobState::Ended(_) => return,
    };
    let (unit, ticket, element) = (member.unit, member.ticket, member.element);
    out.push(Effect::Stands { unit, ticket, job: Some(job.clone()), element, waits, host });
}

/// Tells of the end of a unit: in the words of the system, or if it does not say how by the status of the nanny.
fn end(member: &mut Member, job: Option<Job>, tag: &str, how: &JobEnd, out: &mut Vec<Effect>) {
    member.told = true;
    let end = match (how, &member.phase) {
        (JobEnd::Forgotten, Phase::Bye { status, .. }) => {
            End { ok: *status == 0, how: format!("exited with {status}"), tail: String::new() }
        }
        (how, _) => how.end(),
    };
    out.push(Effect::Forget { name: name_of(tag, member.element) });
    out.push(Effect::Ended { unit: member.unit, ticket: member.ticket, job, element: member.element, end });
}

#[cfg(test)]
mod tests;
