//! A fleet that grows with the queue, and shrinks when engines have nothing to do.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_proto::{EngineId, EngineUuid, Instant};

use super::{Effect, EngineStanding, Fleet, UnitEntry, UnitStanding};
use crate::nanny::Word;

/// How many engines there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elastic {
    /// At least; those that are missing are started.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// How long an engine has nothing to do until it leaves.
    pub idle: Duration,
}

/// What the hub says of a registered engine.
#[derive(Clone, Debug)]
pub struct EngineLoad {
    /// Its id.
    pub id: EngineId,
    /// Its uuid.
    pub uuid: EngineUuid,
    /// What it has to do: tasks and direct requests.
    pub outstanding: u64,
    /// What it finished.
    pub completed: u64,
    /// How many tasks it runs at once.
    pub slots: u32,
}

/// Since when an engine has had nothing to do, and what it had finished then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    since: Instant,
    completed: u64,
}

impl Fleet {
    /// Acts on how many tasks wait for an engine, and on what the engines have to do.
    pub(super) fn adapt(&mut self, now: Instant, waiting: u64, engines: &[EngineLoad], out: &mut Vec<Effect>) {
        let Some(elastic) = self.elastic.filter(|_| !self.stopping) else { return };
        self.note_idle(now, engines);
        let (alive, coming) = self.alive(engines);
        let slots = engines.iter().map(|engine| engine.slots.max(1)).max().unwrap_or(1);
        let wanted = u32::try_from(waiting.div_ceil(u64::from(slots))).unwrap_or(u32::MAX);
        let missing = elastic.min.saturating_sub(alive).max(wanted.saturating_sub(coming));
        let more = missing.min(elastic.max.saturating_sub(alive));
        if more > 0 {
            if self.hold.is_none_or(|until| until <= now) {
                self.start_units(now, more, out);
            }
        } else if waiting == 0 {
            self.let_go(now, elastic, alive, engines, out);
        }
    }

    /// Remembers since when engines have had nothing to do.
    fn note_idle(&mut self, now: Instant, engines: &[EngineLoad]) {
        let before = std::mem::take(&mut self.idle);
        let idle = engines.iter().filter(|engine| engine.outstanding == 0).map(|engine| {
            let since = before.get(&engine.uuid).filter(|idle| idle.completed == engine.completed);
            let since = since.map_or(now, |idle| idle.since);
            (engine.uuid.clone(), Idle { since, completed: engine.completed })
        });
        self.idle = idle.collect();
    }

    /// How many engines run or are about to and are not to end; and how many of these are not registered yet.
    fn alive(&self, engines: &[EngineLoad]) -> (u32, u32) {
        let there: BTreeSet<&EngineUuid> = engines.iter().map(|engine| &engine.uuid).collect();
        let (mut alive, mut coming) = (0_u32, 0_u32);
        // Those whose nanny ends are about to end, and are started anew as others.
        let stays = |unit: &&UnitEntry| unit.standing != UnitStanding::Ended && unit.signal.is_none();
        for unit in self.roster.units.iter().filter(stays) {
            // Places of which nothing was heard yet are about to have an engine.
            let silent = unit.wanted.saturating_sub(u32::try_from(unit.engines.len()).unwrap_or(u32::MAX));
            alive += silent;
            coming += silent;
            for entry in unit.engines.iter().filter(|entry| !entry.is_ending) {
                let is_there = there.contains(&entry.uuid);
                alive += u32::from(entry.standing != EngineStanding::Ended);
                coming += u32::from(entry.standing == EngineStanding::Running && !is_there);
            }
        }
        (alive, coming)
    }

    /// Has engines leave that have had nothing to do for long, as many as can be spared, those first that were idle for
    /// longest. The hub sees to it that none leaves with work.
    fn let_go(&mut self, now: Instant, elastic: Elastic, alive: u32, engines: &[EngineLoad], out: &mut Vec<Effect>) {
        let spare = alive.saturating_sub(elastic.min) as usize;
        let mut idle: Vec<(Instant, EngineId, EngineUuid)> = engines
            .iter()
            .filter_map(|engine| {
                let idle = self.idle.get(&engine.uuid).filter(|idle| now.since(idle.since) >= elastic.idle)?;
                let (unit, place) = *self.places.get(&engine.uuid)?;
                let is_ending = self.roster.units[unit as usize].engine(place).is_ending;
                (!is_ending).then(|| (idle.since, engine.id, engine.uuid.clone()))
            })
            .collect();
        idle.sort_unstable();
        idle.truncate(spare);
        let leaving: Vec<(EngineId, EngineUuid)> = idle.into_iter().map(|(_, id, uuid)| (id, uuid)).collect();
        if !leaving.is_empty() {
            self.intend(&leaving, false, false, out);
            out.push(Effect::Drain { by: None, engines: leaving });
        }
    }

    /// Engines that were to leave get tasks again where the hub refused to drain them.
    pub(super) fn keep(&mut self, uuids: &[EngineUuid], out: &mut Vec<Effect>) {
        for uuid in uuids {
            if let Some((unit, place)) = self.places.get(uuid).copied() {
                self.roster.units[unit as usize].engine(place).is_ending = false;
                // It is started again by the policy, as before.
                let word = Word::Keep { uuids: vec![uuid.clone()] };
                out.push(Effect::Tell { unit, word });
            }
        }
    }
}
