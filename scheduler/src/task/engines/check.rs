//! What always holds of the engines.

use remuda_proto::message::needs::Needs;

use super::{BTreeMap, BTreeSet, Engine, Engines, Index, Rank, Reserved, Room};
use crate::task::room::Used;

impl Engines {
    /// Panics if an engine was given more than it may have: `asks` is what tasks take that this controller gave it.
    pub(in crate::task) fn check_room<'a>(&self, engine: &Engine, asks: impl Iterator<Item = Option<&'a Needs>>) {
        let Some((kind, _)) = engine.member.filter(|_| self.hwm > 0) else { return };
        let has = &self.kinds[kind].capability;
        let mut used = Used::default();
        for asks in asks {
            assert!(used.leaves(has, self.hwm, None, asks), "`{}` has too much: {used:?} and {asks:?}", engine.uuid);
            used.add(asks);
        }
    }

    /// Panics if the state contradicts itself.
    pub(in crate::task) fn check(&self) {
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
            assert_eq!(engine.sorted, self.sorted(at), "`{}`", engine.uuid);
            if let Some(Reserved { place, key, .. }) = &engine.reserved {
                assert!(engine.open_kind().is_some(), "`{}` gets no more tasks", engine.uuid);
                assert_eq!(self.reserved.get(&(*place, *key)), Some(&at));
            }
            assert!(engine.member.is_some() || engine.draining.is_none(), "`{}` is gone", engine.uuid);
            assert_eq!(engine.draining.is_some(), self.draining.contains(&at), "`{}`", engine.uuid);
            assert!((self.front..=self.back).contains(&engine.turn), "`{}` is at {}", engine.uuid, engine.turn);
            if let Some((kind, place)) = engine.member {
                assert_eq!(self.kinds[kind].members[place], at);
            }
        }
        for (at, kind) in self.kinds.iter() {
            assert!(!kind.members.is_empty(), "kind {at} has no members");
            let ranks = kind.members.iter().map(|engine| (self.slab[*engine].indexed, *engine));
            if let Some(by_room) = &kind.by_room {
                let mut wanted: BTreeMap<Room, BTreeSet<(Rank, u32)>> = BTreeMap::new();
                for engine in &kind.members {
                    let Some((room, rank)) = self.slab[*engine].sorted.clone() else { continue };
                    wanted.entry(room).or_default().insert((rank, *engine));
                }
                assert_eq!(by_room, &wanted);
            }
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
