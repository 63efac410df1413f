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
}
