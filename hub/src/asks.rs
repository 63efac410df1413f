//! Questions to the store whose answers are on their way, and what is done with each.

use std::collections::BTreeMap;

use remuda_proto::{EngineUuid, Map, MsgId, RemoteError};

use crate::query::{Awaited, Query};
use crate::question::Question;
use crate::tracking::{EngineKey, Seen};

/// Most questions of clients that wait for the store at a time.
pub const MAX_ASKS: usize = 4_096;

/// What is done with an answer.
#[derive(Debug)]
pub(crate) enum Then {
    /// A query is answered.
    Query {
        /// What was asked, and by whom.
        query: Query,
        /// What it needs the answer for.
        awaited: Awaited,
    },
    /// A question that needed other parts of the controller is answered.
    Question {
        /// The question.
        question: Box<Question>,
        /// How the hub saw its tasks when it asked for their records.
        seen: Map<MsgId, Seen>,
    },
    /// A question that waits for other parts has this one.
    State {
        /// Its number.
        question: u64,
    },
    /// The direct requests of these engines are given up.
    GiveUp {
        /// What each was called.
        engines: Map<EngineKey, (String, EngineUuid)>,
    },
}

/// The questions that wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// By number. No more than [`MAX_ASKS`], and those that are not of clients.
    waiting: BTreeMap<u64, Then>,
    /// The number of the next one: above those of all that wait.
    next: u64,
}

impl Asks {
    /// Whether a client may ask another one.
    ///
    /// # Errors
    /// What to answer if not.
    pub(crate) fn has_room(&self) -> Result<(), RemoteError> {
        if self.waiting.len() < MAX_ASKS {
            return Ok(());
        }
        let text = format!("{MAX_ASKS} questions wait for the task records: ask again later");
        Err(RemoteError::new("RuntimeError", text))
    }

    /// Takes up a question: its number.
    pub(crate) fn ask(&mut self, then: Then) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, then);
        number
    }

    /// What to do with the answer to a question. Each has one.
    pub(crate) fn answered(&mut self, number: u64) -> Then {
        self.waiting.remove(&number).unwrap_or_else(|| panic!("question {number} has an answer and was not asked"))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Panics if the state contradicts itself.
    pub(crate) fn check(&self) {
        assert!(self.waiting.last_key_value().is_none_or(|(last, _)| *last < self.next), "{} is next", self.next);
    }
}
