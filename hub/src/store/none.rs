//! A store that keeps no records (`controller/dictdb.py: NoDB`).

use super::definitions::Shelf;
use super::{Answer, Ask, Committed, StoreError, StoreState, TaskStore, Write};

/// Keeps no records, and says so to who asks. Process definitions it keeps in memory.
#[derive(Clone, Debug, Default)]
pub struct NoStore {
    /// What the next commit comes to.
    written: Committed,
    definitions: Shelf,
}

impl TaskStore for NoStore {
    fn write(&mut self, write: Write) {
        self.written.note(&write);
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, StoreError> {
        match ask {
            Ask::State => Ok(Answer::State(StoreState { kind: "none", ..StoreState::default() })),
            Ask::Definitions(ask) => Ok(Answer::Definitions(self.definitions.answer(ask))),
            Ask::Find(_) | Ask::History | Ask::Alike { .. } => Err(StoreError::NoData),
        }
    }

    fn commit(&mut self) -> Result<Committed, StoreError> {
        Ok(std::mem::take(&mut self.written))
    }

    fn check(&self) {
        self.definitions.check();
    }
}
