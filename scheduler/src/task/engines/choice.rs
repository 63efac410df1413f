//! How an engine is chosen, by the scheme.

use rand::RngExt;
use remuda_proto::message::needs::Needs;

use super::{Engine, Engines, Index, Kind, Rank, weight};
use crate::task::config::Scheme;

impl Engines {
    /// Chooses an engine with room, of these kinds, that did not try the task; `blacklist` is sorted.
    pub(in crate::task) fn choose(&mut self, kinds: &[u32], blacklist: &[u32]) -> Option<u32> {
        self.work += kinds.len() as u64;
        match self.scheme {
            Scheme::LeastLoad | Scheme::Lru | Scheme::Pure => self.first(kinds, blacklist),
            Scheme::PlainRandom | Scheme::TwoBin | Scheme::Weighted => {
                self.set_aside(kinds, blacklist, true);
                let chosen = self.draw(kinds);
                self.set_aside(kinds, blacklist, false);
                chosen
            }
        }
    }

    /// Chooses an engine of these kinds where so much is free, that did not try the task; `blacklist` is sorted.
    ///
    /// Costs a step for each way in which engines are partly free, of which there are few beside the engines.
    pub(in crate::task) fn choose_with(&mut self, kinds: &[u32], blacklist: &[u32], asks: &Needs) -> Option<u32> {
        let mut best: Option<(Rank, u32)> = None;
        for kind in kinds {
            let Kind { by_room: Some(by_room), capability, .. } = &self.kinds[*kind] else {
                panic!("kind {kind} is not sorted by what is free")
            };
            for (room, engines) in by_room {
                self.work += 1;
                if !room.fits(capability, asks) {
                    continue;
                }
                let mut tried = 0;
                let first = engines.iter().find(|(_, engine)| {
                    let is_tried = blacklist.binary_search(engine).is_ok();
                    tried += u64::from(is_tried);
                    !is_tried
                });
                self.work += tried;
                best = best.into_iter().chain(first.copied()).min();
            }
        }
        best.map(|(_, engine)| engine)
    }

    /// Chooses one of `engines`, which the caller found fit, as the scheme would if there were no others.
    pub(in crate::task) fn choose_of(&mut self, engines: &mut [u32]) -> Option<u32> {
        self.work += engines.len() as u64;
        // In line, so that a place in the list tells who is nearer the front.
        engines.sort_unstable_by_key(|engine| self.slab[*engine].turn);
        let &first = engines.first()?;
        Some(match self.scheme {
            Scheme::LeastLoad => engines.iter().copied().min_by_key(|engine| self.load(*engine)).unwrap_or(first),
            Scheme::Lru | Scheme::Pure => first,
            Scheme::PlainRandom => engines[self.rng.random_range(0..engines.len())],
            Scheme::TwoBin => {
                let (one, two) = (self.rng.random_range(0..engines.len()), self.rng.random_range(0..engines.len()));
                engines[one.min(two)]
            }
            Scheme::Weighted => {
                let weights: Vec<u64> = engines.iter().map(|engine| weight(self.load(*engine))).collect();
                let total = weights.iter().sum::<u64>();
                let [one, two] = [(); 2].map(|()| {
                    let mut sum = self.rng.random_range(0..total);
                    let found = weights.iter().position(|weight| match sum.checked_sub(*weight) {
                        None => true,
                        Some(rest) => {
                            sum = rest;
                            false
                        }
                    });
                    found.unwrap_or(0)
                });
                engines[if weights[two] > weights[one] { two } else { one }]
            }
        })
    }

    /// The first of these kinds by rank.
    fn first(&mut self, kinds: &[u32], blacklist: &[u32]) -> Option<u32> {
        let mut skipped = 0;
        let firsts = kinds.iter().filter_map(|kind| {
            let Index::Line(line) = &self.kinds[*kind].index else { panic!("{} does not draw", self.scheme) };
            line.iter().find(|(_, engine)| {
                let tried = blacklist.binary_search(engine).is_ok();
                skipped += u64::from(tried);
                !tried
            })
        });
        let chosen = firsts.min().map(|(_, engine)| *engine);
        self.work += skipped;
        chosen
    }

    /// Takes engines out of the draw, or puts them back.
    fn set_aside(&mut self, kinds: &[u32], engines: &[u32], aside: bool) {
        for engine in engines {
            let Engine { member: Some((kind, at)), indexed, .. } = self.slab[*engine] else { continue };
            if kinds.contains(&kind) {
                self.work += 1;
                let (before, after) = if aside { (indexed, None) } else { (None, indexed) };
                self.kinds[kind].index.change(*engine, at, before, after);
            }
        }
    }

    /// Draws as the scheme says.
    fn draw(&mut self, kinds: &[u32]) -> Option<u32> {
        let total = kinds.iter().map(|kind| self.kinds[*kind].weight()).sum::<u64>();
        if total == 0 {
            return None;
        }
        let one = self.draw_one(kinds, total);
        Some(match self.scheme {
            Scheme::TwoBin => {
                let two = self.draw_one(kinds, total);
                if self.slab[two].turn < self.slab[one].turn { two } else { one }
            }
            Scheme::Weighted => {
                let two = self.draw_one(kinds, total);
                if self.slab[two].indexed > self.slab[one].indexed { two } else { one }
            }
            _ => one,
        })
    }

    fn draw_one(&mut self, kinds: &[u32], total: u64) -> u32 {
        self.work += 1;
        let mut sum = self.rng.random_range(0..total);
        for kind in kinds {
            let Kind { members, index, .. } = &self.kinds[*kind];
            let Index::Draw(draw) = index else { panic!("{} draws", self.scheme) };
            match sum.checked_sub(draw.total()) {
                Some(rest) => sum = rest,
                None => return members[draw.find(sum)],
            }
        }
        panic!("{sum} is left of a draw among {total}")
    }
}
