//! Engines that the controller gave up though their processes run: it did not hear them for too long.
//!
//! A native engine is back by itself when it is heard again. One of ipyparallel never is, and would wait for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_proto::{EngineUuid, Instant};

use super::{Effect, Fleet};
use crate::nanny::Word;

/// How long an engine that was registered may be missing.
const PATIENCE: Duration = Duration::from_secs(30);

impl Fleet {
    /// The engines that are registered now, to be told now and then. Those that were and are not any more for 30 s are
    /// started again, if they run.
    pub fn registered(&mut self, now: Instant, registered: &BTreeSet<EngineUuid>, out: &mut Vec<Effect>) {
        let places = &self.places;
        self.missing.retain(|uuid, _| places.contains_key(uuid));
        let mut given_up = Vec::new();
        for (uuid, place) in &self.places {
            if registered.contains(uuid) {
                self.missing.insert(uuid.clone(), None);
            } else if let Some(since) = self.missing.get_mut(uuid)
                && now.since(*since.get_or_insert(now)) >= PATIENCE
            {
                given_up.push((uuid.clone(), *place));
            }
        }
        for (uuid, (unit, place)) in given_up {
            self.missing.remove(&uuid);
            let Some(of) = self.roster.units.get_mut(unit as usize) else { continue };
            let entry = of.engine(place);
            if self.stopping || entry.is_ending {
                continue;
            }
            entry.is_ending = true;
            out.push(Effect::Complain(format!(
                "the controller gave up an engine (process {}) that still runs: it is started again",
                entry.pid
            )));
            out.push(Effect::Tell { unit, word: Word::End { uuids: vec![uuid], again: true, now: true } });
        }
    }
}
