//! The engines: which are there, what they have and what is free, and which comes first.

mod check;
mod choice;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use remuda_proto::message::native::{Capability, Need};
use remuda_proto::message::needs::Needs;
use remuda_proto::{EngineUuid, Identity, Map};

use super::config::Scheme;
use super::fenwick::Fenwick;
use super::place::Place;
use super::room::{Room, Used};
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
    /// What these take.
    used: Used,
    /// The number of the request for which it gets no more tasks, though it is there.
    draining: Option<u64>,
    /// The queued task that what becomes free is kept for, its place, and what it takes.
    reserved: Option<Reserved>,
    /// Its place in line: lowest first.
    turn: i64,
    /// Under what it stands in the index of its kind; `None`: it has no room, or is not there.
    indexed: Option<Rank>,
    /// Under what it stands among those that are sorted by what is free.
    sorted: Option<(Room, Rank)>,
    /// The ready tasks that only certain engines may run, this one among them, by need and place in the queue.
    pub(super) own: BTreeMap<(u32, Place), u32>,
    /// By need, the epoch of the queue of tasks to try elsewhere, and up to where (exclusively) in it this engine has tried
    /// them all.
    pub(super) cursors: Map<u32, (u64, Place)>,
}

impl Engine {
    /// The kind of an engine that is there and may get tasks.
    fn open_kind(&self) -> Option<u32> {
        self.member.filter(|_| self.draining.is_none()).map(|(kind, _)| kind)
    }
}

/// What is kept free on an engine.
#[derive(Clone, Debug)]
struct Reserved {
    place: Place,
    key: u32,
    needs: Arc<Needs>,
}

/// What orders an engine in the index of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// With `leastload` the load in thousandths of a slot, by slots; with `lru` and `pure` 0; with the others the weight in the draw, never 0.
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
    /// Those of them that have a slot free.
    index: Index,
    /// All of them by what is free, whatever the scheme; `None` while no task asks for other than one slot.
    by_room: Option<BTreeMap<Room, BTreeSet<(Rank, u32)>>>,
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
    by_capability: BTreeMap<Capability, u32>,
    /// How engines are chosen.
    scheme: Scheme,
    /// How often an engine may be given what it has; 0: no limit.
    hwm: usize,
    /// The place in line of the engine that joined last; all others are behind it.
    front: i64,
    /// The last place in line.
    back: i64,
    /// The source of all draws.
    rng: ChaCha8Rng,
    /// How many engines are there.
    live: usize,
    /// Those that are there and get no more tasks.
    draining: BTreeSet<u32>,
    /// The engines on which something is reserved, by the task.
    reserved: BTreeMap<(Place, u32), u32>,
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
            draining: BTreeSet::new(),
            reserved: BTreeMap::new(),
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
            used: Used::default(),
            draining: None,
            reserved: None,
            turn: 0,
            indexed: None,
            sorted: None,
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
        let known = self.by_capability.get(&capability).copied();
        let kind = known.unwrap_or_else(|| {
            let index = match self.scheme {
                Scheme::LeastLoad | Scheme::Lru | Scheme::Pure => Index::Line(BTreeSet::new()),
                Scheme::PlainRandom | Scheme::TwoBin | Scheme::Weighted => Index::Draw(Fenwick::default()),
            };
            let kind = self.kinds.insert(Kind {
                capability: capability.clone(),
                members: Vec::new(),
                index,
                by_room: None,
                needs: Vec::new(),
            });
            self.by_capability.insert(capability, kind);
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
        self.unreserve(engine);
        let leaving = &mut self.slab[engine];
        if leaving.draining.take().is_some() {
            self.draining.remove(&engine);
        }
        let (kind, at) = leaving.member.take().unwrap_or_else(|| panic!("`{}` leaves twice", leaving.uuid));
        let before = leaving.indexed.take();
        let sorted = leaving.sorted.take();
        self.live -= 1;
        let members = &mut self.kinds[kind];
        members.sort(engine, sorted, None);
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

    /// Whether an engine is there and has so much free, beside what is reserved for tasks before this place.
    pub(super) fn has_room(&self, engine: u32, asks: Option<&Needs>, place: Place) -> bool {
        let known = &self.slab[engine];
        let Some(kind) = known.open_kind() else { return false };
        let reserved = known.reserved.as_ref().filter(|reserved| reserved.place < place);
        let reserved = reserved.map(|reserved| &*reserved.needs);
        self.hwm == 0 || known.used.leaves(&self.kinds[kind].capability, self.hwm, reserved, asks)
    }

    /// Whether anything at all is free on an engine.
    pub(super) fn has_any_room(&self, engine: u32) -> bool {
        let known = &self.slab[engine];
        let Some(kind) = known.open_kind() else { return false };
        self.hwm == 0 || known.used.leaves_any(&self.kinds[kind].capability, self.hwm)
    }

    /// An engine that is there gets no more tasks from now on, by the request of this number; or it does again.
    pub(super) fn set_draining(&mut self, engine: u32, draining: Option<u64>) {
        assert!(self.is_live(engine), "`{}` is to be drained but is not there", self.slab[engine].uuid);
        self.unreserve(engine);
        self.slab[engine].draining = draining;
        match draining {
            Some(_) => self.draining.insert(engine),
            None => self.draining.remove(&engine),
        };
        self.reindex(engine);
    }

    /// Those of a kind that get no more tasks.
    pub(super) fn draining_of(&self, kind: u32) -> impl Iterator<Item = u32> {
        self.draining.iter().copied().filter(move |engine| self.kind_of(*engine) == Some(kind))
    }

    /// The number of the request for which an engine that is there gets no more tasks.
    pub(super) fn draining(&self, engine: u32) -> Option<u64> {
        self.slab[engine].draining
    }

    /// A task is with an engine.
    pub(super) fn put(&mut self, engine: u32, key: u32, asks: Option<&Needs>) -> u32 {
        let known = &mut self.slab[engine];
        let at = u32::try_from(known.running.len()).expect("there are no more tasks than numbers for them");
        known.running.push(key);
        known.used.add(asks);
        at
    }

    /// The task that stands at this place among those of an engine is taken back. Returns the one that now stands there.
    pub(super) fn take_back(&mut self, engine: u32, at: u32, key: u32, asks: Option<&Needs>) -> Option<u32> {
        let known = &mut self.slab[engine];
        assert_eq!(known.running.swap_remove(at as usize), key);
        known.used.remove(asks);
        known.running.get(at as usize).copied()
    }

    /// Keeps what becomes free on an engine for a queued task. Anything that was kept there for another one no longer is.
    pub(super) fn reserve(&mut self, engine: u32, place: Place, key: u32, needs: Arc<Needs>) {
        self.unreserve(engine);
        self.slab[engine].reserved = Some(Reserved { place, key, needs });
        let before = self.reserved.insert((place, key), engine);
        assert_eq!(before, None, "something is kept for a task in two places");
    }

    /// Nothing is kept on an engine any more.
    fn unreserve(&mut self, engine: u32) {
        if let Some(reserved) = self.slab[engine].reserved.take() {
            self.reserved.remove(&(reserved.place, reserved.key));
        }
    }

    /// The engine where something is kept for a task.
    pub(super) fn reserved_for(&self, place: Place, key: u32) -> Option<u32> {
        self.reserved.get(&(place, key)).copied()
    }

    /// Nothing is kept for a task any more. Returns the engine where something was.
    pub(super) fn release(&mut self, place: Place, key: u32) -> Option<u32> {
        let engine = self.reserved_for(place, key)?;
        self.unreserve(engine);
        Some(engine)
    }

    /// The place of the task for which something is kept on an engine.
    pub(super) fn reserved_on(&self, engine: u32) -> Option<Place> {
        self.slab[engine].reserved.as_ref().map(|reserved| reserved.place)
    }

    /// The engines where something is kept for tasks that come after this place.
    pub(super) fn reserved_after(&self, place: Place) -> impl Iterator<Item = u32> {
        self.reserved.range((place, u32::MAX)..).map(|(_, engine)| *engine)
    }

    /// Sorts the engines of a kind by what is free, if they are not.
    pub(super) fn sort_by_room(&mut self, kind: u32) {
        if self.kinds[kind].by_room.is_some() {
            return;
        }
        self.kinds[kind].by_room = Some(BTreeMap::new());
        let members = self.kinds[kind].members.clone();
        self.work += members.len() as u64;
        members.into_iter().for_each(|engine| self.reindex(engine));
    }

    /// Whether an engine is there and is a stock one, whose nanny stops its tasks.
    pub(super) fn is_stock(&self, engine: u32) -> bool {
        self.slab[engine].member.is_some_and(|(kind, _)| !self.kinds[kind].capability.native)
    }

    /// Whether an engine is there and can run a task of this need.
    pub(super) fn serves(&self, engine: u32, need: &Need) -> bool {
        self.slab[engine].member.is_some_and(|(kind, _)| self.kinds[kind].capability.serves(need))
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

    /// No task asks a kind for other than one slot any more.
    pub(super) fn unsort(&mut self, kind: u32) {
        self.kinds[kind].by_room = None;
        let members = &self.kinds[kind].members;
        self.work += members.len() as u64;
        members.iter().for_each(|engine| self.slab[*engine].sorted = None);
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
        if !self.has_room(engine, None, Place::LAST) {
            return None;
        }
        let turn = self.slab[engine].turn;
        Some(match self.scheme {
            Scheme::LeastLoad => Rank { measure: self.load(engine), turn },
            Scheme::Lru | Scheme::Pure => Rank { measure: 0, turn },
            Scheme::PlainRandom | Scheme::TwoBin => Rank { measure: 1, turn: 0 },
            Scheme::Weighted => Rank { measure: weight(self.load(engine)), turn: 0 },
        })
    }

    /// What an engine that is there has to do, in thousandths of a slot, by slots.
    fn load(&self, engine: u32) -> u64 {
        let slots = self.slab[engine].member.map_or(1, |(kind, _)| self.kinds[kind].capability.slots);
        self.slab[engine].used.cpus() / u64::from(slots)
    }

    /// Where an engine should be among those that are sorted by what is free. Tasks that ask for more than a slot go to the
    /// one with the least load, whatever the scheme; with `lru`, to the first in line.
    fn sorted(&self, engine: u32) -> Option<(Room, Rank)> {
        let known = &self.slab[engine];
        let kind = &self.kinds[known.open_kind()?];
        kind.by_room.as_ref()?;
        let reserved = known.reserved.as_ref().map(|reserved| &*reserved.needs);
        let room = known.used.room(&kind.capability, self.hwm, reserved)?;
        let measure = if self.scheme == Scheme::Lru { 0 } else { self.load(engine) };
        Some((room, Rank { measure, turn: known.turn }))
    }

    /// Brings the index up to date after the load or the turn of an engine changed.
    pub(super) fn reindex(&mut self, engine: u32) {
        let (rank, sorted) = (self.rank(engine), self.sorted(engine));
        let known = &mut self.slab[engine];
        let Some((kind, at)) = known.member else { return };
        if known.sorted != sorted {
            self.work += 1;
            let before = std::mem::replace(&mut known.sorted, sorted.clone());
            self.kinds[kind].sort(engine, before, sorted);
        }
        if known.indexed != rank {
            self.work += 1;
            let before = std::mem::replace(&mut known.indexed, rank);
            self.kinds[kind].index.change(engine, at, before, rank);
        }
    }

    /// The tasks for which something is kept.
    pub(super) fn reservations(&self) -> impl Iterator<Item = (Place, u32)> {
        self.reserved.keys().copied()
    }
}

/// 1/(1e-6 + load), in units that make whole numbers of all loads up to a million, and whose sums do not overflow for
/// as many engines. The load is in thousandths.
fn weight(load: u64) -> u64 {
    (1_000_000_000_000 / load.saturating_mul(1000).saturating_add(1)).max(1)
}

impl Kind {
    /// Moves an engine among those that are sorted by what is free.
    fn sort(&mut self, engine: u32, before: Option<(Room, Rank)>, after: Option<(Room, Rank)>) {
        let Some(by_room) = &mut self.by_room else { return };
        if let Some((room, rank)) = before {
            let engines = by_room.get_mut(&room).unwrap_or_else(|| panic!("no engine has {room:?}"));
            assert!(engines.remove(&(rank, engine)), "engine {engine} is not at {rank:?}");
            if engines.is_empty() {
                by_room.remove(&room);
            }
        }
        if let Some((room, rank)) = after {
            by_room.entry(room).or_default().insert((rank, engine));
        }
    }

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
