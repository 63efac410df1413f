//! The engines that are registered, as a client knows them.

use std::collections::BTreeMap;

use remuda_proto::message::content::ConnectionReply;
use remuda_proto::{Body, EngineId, EngineUuid, Instant, Map, MsgId, Packer, Refusal, Set};

/// What names an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its id; `None` for an engine that is not registered.
    pub id: Option<EngineId>,
    /// Its uuid.
    pub uuid: EngineUuid,
}

#[derive(Debug)]
struct Entry {
    /// Its id. No two engines have the same.
    id: EngineId,
    /// When it was last heard of as registered.
    heard: Instant,
    /// Requests sent to it by name that have no outcome.
    requests: Set<MsgId>,
}

/// The list of engines.
#[derive(Debug, Default)]
pub(super) struct Engines {
    /// All of them.
    by_uuid: Map<EngineUuid, Entry>,
    /// All of them, by the `id` of the entry.
    by_id: BTreeMap<EngineId, EngineUuid>,
}

/// Reads the list of a `connection_reply`.
///
/// # Errors
/// When an id is not a number.
pub(super) fn read_list(packer: Packer, body: &Body) -> Result<Vec<(EngineId, EngineUuid)>, Refusal> {
    let reply: ConnectionReply = packer.unpack(body.content())?;
    let read = |(id, uuid): (String, EngineUuid)| match id.parse() {
        Ok(number) => Ok((EngineId(number), uuid)),
        Err(_) => Err(Refusal::Unpack(format!("engine id `{id}` is no number"))),
    };
    reply.engines.into_iter().map(read).collect()
}

impl Engines {
    /// Adds an engine whose uuid and id nobody has.
    pub(super) fn join(&mut self, id: EngineId, uuid: &EngineUuid, now: Instant) {
        self.by_uuid.insert(uuid.clone(), Entry { id, heard: now, requests: Set::default() });
        self.by_id.insert(id, uuid.clone());
    }

    /// Notes that an engine is still registered.
    pub(super) fn heard(&mut self, uuid: &EngineUuid, now: Instant) {
        if let Some(entry) = self.by_uuid.get_mut(uuid) {
            entry.heard = now;
        }
    }

    /// The engine of that id.
    pub(super) fn by_id(&self, id: EngineId) -> Option<&EngineUuid> {
        self.by_id.get(&id)
    }

    /// Removes an engine, and gives the requests that were sent to it by name.
    pub(super) fn leave(&mut self, uuid: &EngineUuid) -> Option<(Engine, Set<MsgId>)> {
        let (uuid, entry) = self.by_uuid.swap_remove_entry(uuid)?;
        self.by_id.remove(&entry.id);
        Some((Engine { id: Some(entry.id), uuid }, entry.requests))
    }

    /// The engines that were known when the list was asked for, at `asked`, and are not in it: they have left.
    pub(super) fn unlisted(&self, listed: &[(EngineId, EngineUuid)], asked: Instant) -> Vec<EngineUuid> {
        let listed: Set<&EngineUuid> = listed.iter().map(|(_, uuid)| uuid).collect();
        let gone = self.by_uuid.iter().filter(|(uuid, entry)| entry.heard < asked && !listed.contains(uuid));
        gone.map(|(uuid, _)| uuid.clone()).collect()
    }

    /// The id of an engine.
    pub(super) fn id(&self, uuid: &EngineUuid) -> Option<EngineId> {
        self.by_uuid.get(uuid).map(|entry| entry.id)
    }

    /// Notes a request to an engine; false if there is no such engine.
    pub(super) fn assign(&mut self, uuid: &EngineUuid, msg_id: &MsgId) -> bool {
        self.by_uuid.get_mut(uuid).map(|entry| entry.requests.insert(msg_id.clone())).is_some()
    }

    /// Forgets a request to an engine that may have left.
    pub(super) fn unassign(&mut self, uuid: &EngineUuid, msg_id: &MsgId) {
        if let Some(entry) = self.by_uuid.get_mut(uuid) {
            entry.requests.swap_remove(msg_id);
        }
    }

    pub(super) fn has_request(&self, uuid: &EngineUuid, msg_id: &MsgId) -> bool {
        self.by_uuid.get(uuid).is_some_and(|entry| entry.requests.contains(msg_id))
    }

    pub(super) fn request_count(&self) -> usize {
        self.by_uuid.values().map(|entry| entry.requests.len()).sum()
    }

    pub(super) fn check(&self) {
        let ids: BTreeMap<_, _> = self.by_uuid.iter().map(|(uuid, entry)| (entry.id, uuid.clone())).collect();
        assert_eq!(ids, self.by_id);
        assert_eq!(ids.len(), self.by_uuid.len(), "two engines have one id: {:?}", self.by_uuid);
    }
}
