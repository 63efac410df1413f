//! Who is registered (`controller/hub.py: Hub.register_engine`, `finish_registration`, `unregister_engine`).
//!
//! A registration is pending from its request until the engine's heart is reported; only then do others hear of the
//! engine, since what they send would be lost before its sockets are connected.

use std::time::Duration;

use remuda_proto::message::native::{Announcement, Capability};
use remuda_proto::{EngineId, EngineUuid, Instant, Map};

use crate::engine_state::EngineState;
use crate::tracking::EngineKey;

/// Most engines that can be allowed, pending ones included. More than a process has file descriptors for.
pub const MAX_ENGINES: usize = 65_536;

/// Highest id that is granted because an engine asks for it. Above it there is room for the counter, which a single
/// request could otherwise bring to its end.
pub const MAX_REQUESTED_ID: u32 = 1 << 30;

/// Longest uuid in bytes: it is a `ZeroMQ` identity.
pub const MAX_UUID_BYTES: usize = 255;

/// Why a registration is refused. The texts are what the engine's log will show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistrationError {
    /// That uuid is registered or pending.
    #[error("uuid {} in use", crate::repr::text(.0.as_str()))]
    InUse(EngineUuid),
    /// No socket can have that identity.
    #[error("a uuid has 1 to {MAX_UUID_BYTES} bytes and does not begin with a zero byte")]
    NoIdentity,
    /// There are as many as may be.
    #[error(
        "no room for another engine: this controller takes {0} (`--max-engines`; by default as many as its limit on open \
         files allows): start it with more open files (`ulimit -n`) or a higher `--max-engines`, or stop other engines"
    )]
    Full(usize),
    /// No ids are left.
    #[error("no id is left for another engine: start the controller anew")]
    NoId,
}

/// An engine that is registered.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    /// Its id: the key in [`Registry`]'s table.
    pub(crate) id: EngineId,
    /// Its uuid, which is its `ZeroMQ` identity.
    pub(crate) uuid: EngineUuid,
    /// What it says of itself; `None` for a stock engine.
    pub(crate) announcement: Option<Announcement>,
    /// Under which its tasks are counted.
    pub(crate) key: EngineKey,
}

/// A registration that waits for the engine's heart.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// The id that it was given.
    pub(crate) id: EngineId,
    /// What it says of itself; `None` for a stock engine.
    pub(crate) announcement: Option<Announcement>,
    /// When it asked. Its sockets are connected after that, the heart last: who answers an older ping is a namesake that is
    /// gone.
    since: Instant,
    /// When it is given up.
    stalls_at: Instant,
}

/// Who is registered, and who is about to be.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Most engines, pending ones included.
    max_engines: usize,
    /// Registered engines in the order in which they came.
    engines: Map<EngineId, Engine>,
    /// The same engines by uuid. Exactly those of `engines`.
    by_uuid: Map<EngineUuid, EngineId>,
    /// Pending registrations in the order in which they came, so by ascending deadline. Their uuids and ids are neither
    /// in `engines` nor twice here. With `engines` no more than `max_engines`.
    pending: Map<EngineUuid, Pending>,
    /// The next id. Above every id that was given.
    next_id: u32,
}

impl Registry {
    /// An empty one, for so many engines; for [`MAX_ENGINES`] at most.
    pub(crate) fn new(max_engines: usize) -> Self {
        let max_engines = max_engines.min(MAX_ENGINES);
        Self { max_engines, engines: Map::default(), by_uuid: Map::default(), pending: Map::default(), next_id: 0 }
    }

    /// Begins a registration: the id that the engine gets. A uuid that is in use costs an id all the same.
    pub(crate) fn begin(
        &mut self,
        uuid: &EngineUuid,
        requested: Option<EngineId>,
        announcement: Option<Announcement>,
        since: Instant,
        stalls_at: Instant,
    ) -> Result<EngineId, RegistrationError> {
        if !is_identity(uuid) {
            return Err(RegistrationError::NoIdentity);
        }
        if self.engines.len() + self.pending.len() >= self.max_engines {
            return Err(RegistrationError::Full(self.max_engines));
        }
        let id = self.take_id(requested).ok_or(RegistrationError::NoId)?;
        if self.by_uuid.contains_key(uuid) || self.pending.contains_key(uuid) {
            return Err(RegistrationError::InUse(uuid.clone()));
        }
        self.pending.insert(uuid.clone(), Pending { id, announcement, since, stalls_at });
        Ok(id)
    }

    /// Takes up the registrations of an earlier controller: each is pending until its heart is reported, as if the engine
    /// had just asked for it. What cannot be, and what is registered or pending by now, is left out.
    /// Returns those that are awaited.
    pub(crate) fn restore(&mut self, mut state: EngineState, stalls_at: Instant) -> Vec<EngineUuid> {
        let mut awaited = Vec::new();
        for (id, uuid) in state.engines {
            let used = self.engines.contains_key(&id) || self.pending.values().any(|pending| pending.id == id);
            let known = self.by_uuid.contains_key(&uuid) || self.pending.contains_key(&uuid);
            let room = self.engines.len() + self.pending.len() < self.max_engines;
            if is_identity(&uuid) && id.0 <= MAX_REQUESTED_ID && room && !used && !known {
                let announcement = state.announcements.remove(&id);
                self.next_id = self.next_id.max(id.0 + 1);
                // It is connected already.
                let since = Instant(0);
                awaited.push(uuid.clone());
                self.pending.insert(uuid, Pending { id, announcement, since, stalls_at });
            }
        }
        self.next_id = self.next_id.max(state.next_id.min(MAX_REQUESTED_ID + 1));
        awaited
    }

    /// What the next controller has to know.
    pub(crate) fn state(&self) -> EngineState {
        // Those that are pending, too: they know their ids.
        let registered = self.engines.values().map(|engine| (engine.id, &engine.uuid, &engine.announcement));
        let pending = self.pending.iter().map(|(uuid, pending)| (pending.id, uuid, &pending.announcement));
        let all = || registered.clone().chain(pending.clone());
        EngineState {
            engines: all().map(|(id, uuid, _)| (id, uuid.clone())).collect(),
            next_id: self.next_id,
            announcements: all().filter_map(|(id, _, announcement)| Some((id, announcement.clone()?))).collect(),
            ..EngineState::default()
        }
    }

    /// Takes the pending registration of this uuid away, to be finished, if its heart answered a ping that was sent then.
    pub(crate) fn take_pending(&mut self, uuid: &EngineUuid, pinged: Instant) -> Option<Pending> {
        self.pending.get(uuid).filter(|pending| pending.since <= pinged)?;
        self.pending.shift_remove(uuid)
    }

    /// Takes the pending registration with this id away, to be forgotten.
    pub(crate) fn cancel(&mut self, id: EngineId) -> Option<EngineUuid> {
        let uuid = self.pending.iter().find(|(_, pending)| pending.id == id)?.0.clone();
        self.pending.shift_remove(&uuid);
        Some(uuid)
    }

    /// Takes the pending registration of this uuid away, to be forgotten. Returns whether there was one.
    pub(crate) fn cancel_uuid(&mut self, uuid: &EngineUuid) -> bool {
        self.pending.shift_remove(uuid).is_some()
    }

    /// Gives up the registrations whose hearts were not reported in time.
    pub(crate) fn purge_stalled(&mut self, now: Instant) {
        self.pending.retain(|_, pending| pending.stalls_at > now);
    }

    /// Gives all registrations that are pending this much longer.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.pending.values_mut().for_each(|pending| pending.stalls_at = pending.stalls_at + by);
    }

    /// When the next registration stalls.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.first().map(|(_, pending)| pending.stalls_at)
    }

    /// Adds an engine whose registration is complete.
    pub(crate) fn insert(&mut self, engine: Engine) {
        let (id, uuid) = (engine.id, engine.uuid.clone());
        assert!(self.by_uuid.insert(uuid.clone(), id).is_none(), "engine `{uuid}` registered twice");
        assert!(self.engines.insert(id, engine).is_none(), "engine {id} registered twice");
    }

    /// Removes a registered engine.
    pub(crate) fn remove(&mut self, id: EngineId) -> Option<Engine> {
        let engine = self.engines.shift_remove(&id)?;
        self.by_uuid.swap_remove(&engine.uuid).expect("every engine is listed by uuid");
        Some(engine)
    }

    /// Whether an engine of that id is registered or pending. Looks at all that are pending.
    pub(crate) fn knows(&self, id: EngineId) -> bool {
        self.engines.contains_key(&id) || self.pending.values().any(|pending| pending.id == id)
    }

    /// The registered engine of that id.
    pub(crate) fn engine(&self, id: EngineId) -> Option<&Engine> {
        self.engines.get(&id)
    }

    /// The registered engine of that uuid.
    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<&Engine> {
        self.by_uuid.get(uuid).map(|id| &self.engines[id])
    }

    /// The id of the engine of that uuid, registered or pending.
    pub(crate) fn id_of(&self, uuid: &EngineUuid) -> Option<EngineId> {
        self.by_uuid.get(uuid).copied().or_else(|| self.pending.get(uuid).map(|pending| pending.id))
    }

    /// The registered engines, in the order in which they came.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.engines.values()
    }

    /// How many registrations wait for the engine's heart.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Panics if the tables contradict each other.
    pub(crate) fn check(&self) {
        assert_eq!(self.engines.len(), self.by_uuid.len());
        assert!(self.engines.len() + self.pending.len() <= self.max_engines);
        for (id, engine) in &self.engines {
            assert_eq!(*id, engine.id);
            assert!(id.0 < self.next_id, "id {id} is ahead of the counter");
            assert_eq!(self.by_uuid.get(&engine.uuid), Some(id));
        }
        let mut last = None;
        for (uuid, pending) in &self.pending {
            assert!(!self.by_uuid.contains_key(uuid), "`{uuid}` is both registered and pending");
            assert!(!self.engines.contains_key(&pending.id), "id {} is both registered and pending", pending.id);
            assert!(pending.id.0 < self.next_id);
            assert!(last <= Some(pending.stalls_at), "deadlines out of order");
            last = Some(pending.stalls_at);
        }
    }

    fn take_id(&mut self, requested: Option<EngineId>) -> Option<EngineId> {
        if let Some(id) = requested.filter(|id| id.0 <= MAX_REQUESTED_ID) {
            let taken = self.engines.contains_key(&id) || self.pending.values().any(|pending| pending.id == id);
            if !taken {
                self.next_id = self.next_id.max(id.0 + 1);
                return Some(id);
            }
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        Some(EngineId(id))
    }
}

/// Whether a socket can have that identity.
fn is_identity(uuid: &EngineUuid) -> bool {
    let bytes = uuid.as_str().as_bytes();
    !bytes.is_empty() && bytes.len() <= MAX_UUID_BYTES && bytes[0] != 0
}

impl Engine {
    /// What it can run.
    pub(crate) fn capability(&self) -> Capability {
        self.announcement.as_ref().map_or_else(Capability::stock, Capability::native)
    }
}
