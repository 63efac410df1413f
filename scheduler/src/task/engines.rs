//! The engines, and how one is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use remuda_proto::message::native::{Capability, Need};
use remuda_proto::{EngineUuid, Identity, Map};

use super::config::Scheme;
use super::fenwick::Fenwick;
use crate::slab::Slab;

/// An engine that is there, or one that is not but that something refers to.
#[derive(Debug)]
pub(super) struct Engine {
    /// Its uuid.
    pub(super) uuid: EngineUuid,
    /// Its identity on the socket.
    pub(super) identity: Identity,
    /// Its kind, and where it stands among the members; `None`: it is not there.
    pub(super) member: Option<(u32, usize)>,
    /// How many targets, blacklists, places and finished tasks name it.
    pub(super) refs: usize,
    /// The tasks that it has. Those of an engine that left stay until they are stranded for good, and count as its load
    /// should it come back.
    pub(super) running: Vec<u32>,
    /// Its place in line: lowest first.
    turn: i64,
    /// Under what it stands in the index of its kind; `None`: it has no room, or is not there.
    indexed: Option<Rank>,
    /// The ready tasks that only certain engines may run, this one among them, by need and place in the queue.
    pub(super) own: BTreeMap<(u32, u64), u32>,
    /// By need, up to where (exclusively) in the queue of tasks to try elsewhere this engine has tried them all.
    pub(super) cursors: Map<u32, u64>,
}

/// What orders an engine in the index of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// With `leastload` the load; with `lru` and `pure` 0; with the others the weight in the draw, never 0.
    measure: u64,
    /// The place in line; 0 where the draw does not go by it.
    turn: i64,
}

/// Engines that can run the same.
#[derive(Debug)]
struct Kind {
    /// What they can run.
    capability: Capability,
    /// The engines; never empty.
    members: Vec<u32>,
    /// Those of them that have room.
    index: Index,
    /// The needs that they serve, among those that tasks have.
    needs: Vec<u32>,
}

/// The engines of a kind that have room.
#[derive(Debug)]
enum Index {
    /// By rank, for schemes that take the first.
    Line(BTreeSet<(Rank, u32)>),
    /// By weight, at the place of the member, for schemes that draw.
    Draw(Fenwick),
}

/// A [`Capability`] in a form that has an order.
type CapabilityKey = (bool, bool, Vec<Arc<str>>);

/// All engines that are there or referred to.
///
/// Costs are O(log n) in engines. They grow with the number of *kinds* of engines, of which a cluster has a few.
#[derive(Debug)]
pub(super) struct Engines {
    /// The engines, under the numbers by which tasks refer to them.
    slab: Slab<Engine>,
    /// All of `slab`.
    by_uuid: Map<EngineUuid, u32>,
    /// The kinds of the engines that are there.
    kinds: Slab<Kind>,
    /// All of `kinds`.
    by_capability: BTreeMap<CapabilityKey, u32>,
    /// How engines are chosen.
    scheme: Scheme,
    /// Most tasks on one engine; 0: no limit.
    hwm: usize,
    /// The place in line of the engine that joined last; all others are behind it.
    front: i64,
    /// The last place in line.
    back: i64,
    /// The source of all draws.
    rng: ChaCha8Rng,
    /// How many engines are there.
    live: usize,
    /// Steps taken so far, each O(log n) at most: for tests of cost.
    pub(super) work: u64,
}

impl Engines {
    pub(super) fn new(scheme: Scheme, hwm: u32, seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            by_uuid: Map::default(),
            kinds: Slab::new(),
            by_capability: BTreeMap::new(),
            scheme,
            hwm: if scheme == Scheme::Pure { 0 } else { hwm as usize },
            front: 0,
            back: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            live: 0,
            work: 0,
        }
    }

    /// How many engines are there.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// All engines that are there or referred to.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Engine)> {
        self.slab.iter()
    }

    pub(super) fn find(&self, uuid: &EngineUuid) -> Option<u32> {
        self.by_uuid.get(uuid).copied()
    }

    /// The engine of that uuid, which is made known if it is not. The caller has to count a reference, or to let it
    /// join.
    pub(super) fn intern(&mut self, uuid: &EngineUuid) -> u32 {
        if let Some(engine) = self.find(uuid) {
            return engine;
        }
        let engine = self.slab.insert(Engine {
            uuid: uuid.clone(),
            identity: uuid.identity(),
            member: None,
            refs: 0,
            running: Vec::new(),
            turn: 0,
            indexed: None,
            own: BTreeMap::new(),
            cursors: Map::default(),
        });
        self.by_uuid.insert(uuid.clone(), engine);
        engine
    }

    pub(super) fn count_ref(&mut self, engine: u32) {
        self.slab[engine].refs += 1;
    }

    /// Takes back a reference. An engine that is not there and that nothing refers to is forgotten.
    pub(super) fn drop_ref(&mut self, engine: u32) {
        let known = &mut self.slab[engine];
        assert!(known.refs > 0, "`{}` has no reference to take back", known.uuid);
        known.refs -= 1;
        if known.refs == 0 && known.member.is_none() && known.running.is_empty() {
            assert!(known.own.is_empty(), "`{}` is forgotten but is to run {:?}", known.uuid, known.own);
            let gone = self.slab.remove(engine);
            self.by_uuid.swap_remove(&gone.uuid);
        }
    }

    /// An engine is there, at the front of the line. Returns its kind, and whether the kind is new, so that the caller
    /// has to say which needs it serves.
    pub(super) fn join(&mut self, engine: u32, capability: Capability) -> (u32, bool) {
        assert!(!self.is_live(engine), "`{}` joins twice", self.slab[engine].uuid);
        let mut functions: Vec<Arc<str>> = capability.functions.iter().cloned().collect();
        functions.sort_unstable();
        let key = (capability.python, capability.process, functions);
        let known = self.by_capability.get(&key).copied();
        let kind = known.unwrap_or_else(|| {
            let index = match self.scheme {
                Scheme::LeastLoad | Scheme::Lru | Scheme::Pure => Index::Line(BTreeSet::new()),
                Scheme::PlainRandom | Scheme::TwoBin | Scheme::Weighted => Index::Draw(Fenwick::default()),
            };
            let kind = self.kinds.insert(Kind { capability, members: Vec::new(), index, needs: Vec::new() });
            self.by_capability.insert(key, kind);
            kind
        });
        let members = &mut self.kinds[kind];
        if let Index::Draw(draw) = &mut members.index {
            draw.push();
        }
        members.members.push(engine);
        self.slab[engine].member = Some((kind, members.members.len() - 1));
        self.front -= 1;
        self.slab[engine].turn = self.front;
        self.live += 1;
        self.reindex(engine);
        (kind, known.is_none())
    }

    /// An engine is gone. Returns its kind if it was the last of it. The caller holds a reference.
    pub(super) fn leave(&mut self, engine: u32) -> Option<u32> {
        let leaving = &mut self.slab[engine];
        let (kind, at) = leaving.member.take().unwrap_or_else(|| panic!("`{}` leaves twice", leaving.uuid));
        let before = leaving.indexed.take();
        self.live -= 1;
        let members = &mut self.kinds[kind];
        members.index.change(engine, at, before, None);
        members.members.swap_remove(at);
        if let Some(&moved) = members.members.get(at) {
            let last = members.members.len();
            let rank = self.slab[moved].indexed;
            self.slab[moved].member = Some((kind, at));
            members.index.change(moved, last, rank, None);
            members.index.change(moved, at, None, rank);
        }
        if let Index::Draw(draw) = &mut members.index {
            draw.pop();
        }
        if !members.members.is_empty() {
            return None;
        }
        self.kinds.remove(kind);
        self.work += self.by_capability.len() as u64;
        self.by_capability.retain(|_, other| *other != kind);
        Some(kind)
    }

    pub(super) fn is_live(&self, engine: u32) -> bool {
        self.slab[engine].member.is_some()
    }

    /// Whether an engine is there and has fewer tasks than the limit.
    pub(super) fn has_room(&self, engine: u32) -> bool {
        let engine = &self.slab[engine];
        engine.member.is_some() && (self.hwm == 0 || engine.running.len() < self.hwm)
    }

    /// Whether an engine is there and can run a task of this need.
    pub(super) fn serves(&self, engine: u32, need: &Need) -> bool {
        self.slab[engine].member.is_some_and(|(kind, _)| self.kinds[kind].capability.serves(need))
    }

    /// Most tasks on one engine; 0: no limit.
    pub(super) fn hwm(&self) -> usize {
        self.hwm
    }

    /// The kinds that serve a need.
    pub(super) fn kinds_serving(&self, need: &Need) -> Vec<u32> {
        self.kinds.iter().filter(|(_, kind)| kind.capability.serves(need)).map(|(at, _)| at).collect()
    }

    /// The kinds of the engines that are there, and the engines of each.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (u32, &[u32])> {
        self.kinds.iter().map(|(at, kind)| (at, &*kind.members))
    }

    /// The kind of an engine, if it is there.
    pub(super) fn kind_of(&self, engine: u32) -> Option<u32> {
        self.slab[engine].member.map(|(kind, _)| kind)
    }

    /// Whether a kind serves a need.
    pub(super) fn kind_serves(&self, kind: u32, need: &Need) -> bool {
        self.kinds[kind].capability.serves(need)
    }

    /// The needs that a kind serves, as far as tasks have them.
    pub(super) fn needs_mut(&mut self, kind: u32) -> &mut Vec<u32> {
        &mut self.kinds[kind].needs
    }

    /// The needs that the kind of this engine serves, as far as tasks have them; none if it is not there.
    pub(super) fn needs(&self, engine: u32) -> &[u32] {
        self.slab[engine].member.map_or(&[], |(kind, _)| &self.kinds[kind].needs)
    }

    /// Sends an engine to the end of the line.
    pub(super) fn send_back(&mut self, engine: u32) {
        self.back += 1;
        self.slab[engine].turn = self.back;
    }

    /// Where the index should have an engine.
    fn rank(&self, engine: u32) -> Option<Rank> {
        if !self.has_room(engine) {
            return None;
        }
        let Engine { running, turn, .. } = &self.slab[engine];
        let turn = *turn;
        Some(match self.scheme {
            Scheme::LeastLoad => Rank { measure: running.len() as u64, turn },
            Scheme::Lru | Scheme::Pure => Rank { measure: 0, turn },
            Scheme::PlainRandom | Scheme::TwoBin => Rank { measure: 1, turn: 0 },
            Scheme::Weighted => Rank { measure: weight(running.len()), turn: 0 },
        })
    }

    /// Brings the index up to date after the load or the turn of an engine changed.
    pub(super) fn reindex(&mut self, engine: u32) {
        let rank = self.rank(engine);
        let known = &mut self.slab[engine];
        let Some((kind, at)) = known.member else { return };
        if known.indexed != rank {
            self.work += 1;
            let before = std::mem::replace(&mut known.indexed, rank);
            self.kinds[kind].index.change(engine, at, before, rank);
        }
    }

    /// Chooses an engine with room, of these kinds, that did not try the task; `blacklist` is sorted.
    pub(super) fn choose(&mut self, kinds: &[u32], blacklist: &[u32]) -> Option<u32> {
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

    /// Chooses one of `engines`, which the caller found fit, as the scheme would if there were no others.
    pub(super) fn choose_of(&mut self, engines: &mut [u32]) -> Option<u32> {
        self.work += engines.len() as u64;
        // In line, so that a place in the list tells who is nearer the front.
        engines.sort_unstable_by_key(|engine| self.slab[*engine].turn);
        let load = |engine: &u32| self.slab[*engine].running.len();
        let &first = engines.first()?;
        Some(match self.scheme {
            Scheme::LeastLoad => engines.iter().copied().min_by_key(load).unwrap_or(first),
            Scheme::Lru | Scheme::Pure => first,
            Scheme::PlainRandom => engines[self.rng.random_range(0..engines.len())],
            Scheme::TwoBin => {
                let (one, two) = (self.rng.random_range(0..engines.len()), self.rng.random_range(0..engines.len()));
                engines[one.min(two)]
            }
            Scheme::Weighted => {
                let total = engines.iter().map(|engine| weight(load(engine))).sum::<u64>();
                let draws: [u64; 2] = std::array::from_fn(|_| self.rng.random_range(0..total));
                let [one, two] = draws.map(|mut sum| {
                    let of = |engine: &u32| weight(self.slab[*engine].running.len());
                    let found = engines.iter().copied().find(|engine| match sum.checked_sub(of(engine)) {
                        None => true,
                        Some(rest) => {
                            sum = rest;
                            false
                        }
                    });
                    found.unwrap_or(first)
                });
                if weight(load(&two)) > weight(load(&one)) { two } else { one }
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

    /// Panics if the state contradicts itself.
    pub(super) fn check(&self) {
        assert_eq!(self.by_uuid.len(), self.slab.len());
        assert_eq!(self.by_capability.len(), self.kinds.len());
        assert_eq!(self.live, self.slab.iter().filter(|(_, engine)| engine.member.is_some()).count());
        for (at, engine) in self.slab.iter() {
            assert_eq!(self.by_uuid.get(&engine.uuid), Some(&at));
            assert!(
                engine.member.is_some() || engine.refs > 0 || !engine.running.is_empty(),
                "`{}` is kept for nothing",
                engine.uuid
            );
            assert_eq!(engine.indexed, self.rank(at), "`{}`", engine.uuid);
            assert!((self.front..=self.back).contains(&engine.turn), "`{}` is at {}", engine.uuid, engine.turn);
            if let Some((kind, place)) = engine.member {
                assert_eq!(self.kinds[kind].members[place], at);
            }
        }
        for (at, kind) in self.kinds.iter() {
            assert!(!kind.members.is_empty(), "kind {at} has no members");
            let ranks = kind.members.iter().map(|engine| (self.slab[*engine].indexed, *engine));
            match &kind.index {
                Index::Line(line) => {
                    let wanted: BTreeSet<(Rank, u32)> = ranks.filter_map(|(rank, at)| Some((rank?, at))).collect();
                    assert_eq!(line, &wanted);
                }
                Index::Draw(draw) => {
                    assert_eq!(draw.len(), kind.members.len());
                    assert_eq!(draw.total(), ranks.map(|(rank, _)| rank.map_or(0, |rank| rank.measure)).sum::<u64>());
                }
            }
        }
    }
}

/// 1/(1e-6 + load), in units that make whole numbers of all loads up to a million, and whose sums do not overflow for
/// as many engines.
fn weight(load: usize) -> u64 {
    (1_000_000_000_000 / (1 + 1_000_000 * load as u64)).max(1)
}

impl Kind {
    fn weight(&self) -> u64 {
        match &self.index {
            Index::Draw(draw) => draw.total(),
            Index::Line(line) => line.len() as u64,
        }
    }
}

impl Index {
    /// Moves an engine, which is member `at`, from one rank to another.
    fn change(&mut self, engine: u32, at: usize, before: Option<Rank>, after: Option<Rank>) {
        match self {
            Self::Line(line) => {
                if let Some(rank) = before {
                    assert!(line.remove(&(rank, engine)), "engine {engine} is not in line at {rank:?}");
                }
                if let Some(rank) = after {
                    line.insert((rank, engine));
                }
            }
            Self::Draw(draw) => {
                let weight = |rank: Option<Rank>| rank.map_or(0, |rank| rank.measure);
                draw.change(at, weight(before), weight(after));
            }
        }
    }
}

impl std::ops::Index<u32> for Engines {
    type Output = Engine;
    fn index(&self, engine: u32) -> &Engine {
        &self.slab[engine]
    }
}

impl std::ops::IndexMut<u32> for Engines {
    fn index_mut(&mut self, engine: u32) -> &mut Engine {
        &mut self.slab[engine]
    }
}
