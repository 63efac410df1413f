//! Units that have ended: when one is started again. And those that are jobs of a batch system: how many there are, and how they
//! stand.

use std::time::Duration;

use remuda_proto::Instant;
use remuda_proto::message::restart::{Restart, RestartPolicy};

use super::{Effect, EngineStanding, Fleet, UnitEntry, UnitId, UnitJob, UnitStanding};
use crate::launch::batch::Shape;
use crate::nanny::End;

/// The engines of each unit, in jobs of this shape.
pub(super) fn units(shape: Shape, engines: u32) -> Vec<u32> {
    let jobs = shape.jobs(engines).into_iter();
    jobs.flat_map(|(each, elements)| std::iter::repeat_n(each, elements.max(1) as usize)).collect()
}

impl UnitEntry {
    /// A signal asks the nanny to end: what its engines do from now on is due to that.
    pub(super) fn note_signal(&mut self, signal: i32) {
        let stay = self.staying();
        self.signal.get_or_insert((signal, stay));
    }

    /// How many engines would still be there, if nothing had happened to the nanny.
    fn staying(&self) -> u32 {
        let gone =
            self.engines.iter().filter(|entry| entry.standing == EngineStanding::Ended || entry.is_ending).count();
        self.wanted.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    /// What is said of an end that nobody asked for.
    pub(super) fn complaint(&self, end: &End, again: Option<Duration>) -> String {
        let tail = if end.tail.is_empty() { String::new() } else { format!(":\n{}", end.tail) };
        let wanted = if self.wanted == 1 { "an engine".to_owned() } else { format!("{} engines", self.wanted) };
        let when = again.map_or_else(String::new, |pause| format!(" in {} s", pause.as_secs_f64()));
        let is_not = if again.is_some() { "" } else { "not " };
        let Some(job) = &self.job else {
            return format!("the nanny of {wanted} {}: it is {is_not}started again{when}{tail}", end.how);
        };
        let then = format!("it is {is_not}submitted again{when}");
        let id = if job.id.is_empty() { String::new() } else { format!(" {}", job.id) };
        format!("job{id} of {wanted} {}: {then}{tail}", end.how)
    }
}

impl Fleet {
    /// Starts again the units whose time has come: those together that are due together. It is to be called several times
    /// in a second.
    pub fn look(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for of in &mut self.roster.units {
            if of.standing != UnitStanding::BackingOff || of.again_at.is_none_or(|at| at > now) {
                continue;
            }
            (of.standing, of.again_at, of.since) = (UnitStanding::Starting, None, now);
            (of.host, of.pid, of.started, of.job) = (String::new(), 0, None, None);
            of.engines.clear();
            out.push(Effect::StartUnit { unit: of.unit, engines: of.wanted });
        }
    }

    pub(super) fn queued(&mut self, unit: UnitId, job: UnitJob) {
        if let Some(of) = self.roster.units.get_mut(unit as usize).filter(|of| of.standing != UnitStanding::Ended) {
            of.job = Some(job);
        }
    }

    /// Whether a unit that has ended like this is started again: in how long. What is left of it is only what stays. Makes clear of
    /// an end by a signal that it was one.
    pub(super) fn again(&mut self, now: Instant, unit: UnitId, end: &mut End) -> Option<Duration> {
        let of = self.roster.units.get_mut(unit as usize)?;
        if let Some((signal, _)) = of.signal.filter(|_| end.ok) {
            *end = End::failed(format!("was asked to end by signal {signal}, not from here"));
        }
        if !end.ok && of.standing == UnitStanding::Starting && !self.stopping {
            let pause = Restart::new(RestartPolicy::Always).backoff(self.failures);
            (self.hold, self.failures) = (Some(now + pause), self.failures + 1);
        }
        let policy = self.restart.filter(|_| self.elastic.is_none() && !self.stopping)?;
        // What was never accepted by the system, or never began, is not tried again: whoever asked for it hears why.
        let is_job = of.job.as_ref().is_some_and(|job| !job.id.is_empty());
        let was_accepted = of.restarts > 0 || is_job || of.standing == UnitStanding::Running;
        let stay = of.signal.map_or_else(|| of.staying(), |(_, stay)| stay);
        if stay == 0 || !was_accepted || !policy.applies(end.ok) || of.restarts >= policy.most() {
            return None;
        }
        if now.since(of.since) >= policy.reset_after() {
            of.quick = 0;
        }
        let pause = policy.backoff(of.quick);
        (of.restarts, of.quick, of.wanted, of.again_at) = (of.restarts + 1, of.quick + 1, stay, Some(now + pause));
        Some(pause)
    }
}
