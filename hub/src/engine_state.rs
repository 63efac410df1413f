//! Which engines are registered, as it is kept for the next controller (`controller/hub.py: Hub._save_engine_state`).

use std::collections::BTreeMap;

use remuda_proto::message::native::Announcement;
use remuda_proto::{EngineId, EngineUuid};
use serde::{Deserialize, Serialize};

/// The content of `engines.json`, in stock's format; what only Remuda knows is under a key of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineState {
    /// The engines by id.
    pub engines: BTreeMap<EngineId, EngineUuid>,
    /// The id that the next engine gets.
    pub next_id: u32,
    /// What native engines say of themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", rename = "remuda")]
    pub announcements: BTreeMap<EngineId, Announcement>,
    /// Those that get no more tasks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", rename = "remuda_drained")]
    pub drained: BTreeMap<EngineId, Drained>,
}

/// What was asked for of an engine that gets no more tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Whether it is shut down when it has finished what it has.
    #[serde(default)]
    pub shutdown: bool,
}

/// An id that was given to an engine: what the next controller has to know before the engine does, since nobody else may ever
/// get it. A line of the file beside `engines.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// The id.
    pub id: EngineId,
    /// Who got it.
    pub uuid: EngineUuid,
    /// What a native engine says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "remuda")]
    pub announcement: Option<Announcement>,
}

impl EngineState {
    /// Adds what was granted since. Whatever else was known of that id and of that uuid is older, and goes.
    pub fn grant(&mut self, grant: Grant) {
        let Grant { id, uuid, announcement } = grant;
        self.engines.retain(|_, other| *other != uuid);
        self.engines.insert(id, uuid);
        self.announcements.remove(&id);
        self.drained.remove(&id);
        self.announcements.extend(announcement.map(|announcement| (id, announcement)));
        self.announcements.retain(|id, _| self.engines.contains_key(id));
        self.next_id = self.next_id.max(id.0.saturating_add(1));
    }
}
