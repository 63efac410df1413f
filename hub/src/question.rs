//! Questions of clients whose answers need what other parts of the controller know. The hub asks those, goes on with its
//! work, and answers when all have answered, or at a deadline without them.

use std::time::Duration;

use remuda_proto::message::story::{DriverState, Explanation, HeartState};
use remuda_proto::{Instant, Map, MsgId, RemoteError};

use crate::query::Query;
use crate::store::StoreState;

/// How long a question waits for the other parts.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Most questions that wait at a time.
pub const MAX_QUESTIONS: usize = 64;

/// A question that waits.
#[derive(Debug)]
pub(crate) struct Question {
    /// What was asked, and by whom.
    pub(crate) query: Query,
    /// What it is about.
    pub(crate) about: About,
    /// The tasks that the task scheduler was asked about, in the order of its answer.
    pub(crate) tasks: Vec<MsgId>,
    /// Until when the others may answer.
    answer_by: Instant,
    /// What the task scheduler said.
    pub(crate) explanation: Option<Explanation>,
    /// What the heart monitor said; nobody asks it for stories.
    pub(crate) hearts: Option<HeartState>,
    /// What the drivers count; nobody asks them for stories.
    pub(crate) drivers: Option<DriverState>,
    /// What the store has; nobody asks it in general for stories.
    pub(crate) records: Option<StoreState>,
}

/// What a question is about.
#[derive(Debug)]
pub(crate) enum About {
    /// These tasks: each text that was asked for, and what it stands for.
    Stories(Vec<(String, Meant)>),
    /// Everything.
    Controller,
}

/// What a text stands for.
#[derive(Debug)]
pub(crate) enum Meant {
    /// A task; perhaps one that nobody knows.
    Task(MsgId),
    /// The copies of a broadcast.
    Copies {
        /// The id that the client knows.
        original: MsgId,
        /// Those of the copies.
        ids: Vec<MsgId>,
    },
    /// Several requests.
    Several(Vec<MsgId>),
}

impl Question {
    /// Whether everybody who was asked has answered.
    fn is_complete(&self) -> bool {
        let whole = matches!(self.about, About::Controller);
        let all = self.hearts.is_some() && self.drivers.is_some() && self.records.is_some();
        self.explanation.is_some() && (!whole || all)
    }
}

/// The questions that wait.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    /// By number, which is their order in time; at most [`MAX_QUESTIONS`], none of which is complete.
    waiting: Map<u64, Question>,
    /// The number of the next one.
    next: u64,
}

impl Questions {
    /// Whether another question can wait.
    ///
    /// # Errors
    /// What to answer if not.
    pub(crate) fn has_room(&self) -> Result<(), RemoteError> {
        if self.waiting.len() < MAX_QUESTIONS {
            return Ok(());
        }
        let text = format!("{MAX_QUESTIONS} questions wait for other parts of the controller: ask again later");
        Err(RemoteError::new("RuntimeError", text))
    }

    /// Takes up a question, for which there is room: its number.
    pub(crate) fn ask(&mut self, now: Instant, query: Query, about: About, tasks: Vec<MsgId>) -> u64 {
        let number = self.next;
        self.next += 1;
        let answer_by = now + ANSWER_WITHIN;
        let (explanation, hearts, drivers, records) = (None, None, None, None);
        let question = Question { query, about, tasks, answer_by, explanation, hearts, drivers, records };
        self.waiting.insert(number, question);
        number
    }

    /// Somebody answered. Returns the question if it is complete by that. Answers that come too late mean nothing.
    pub(crate) fn answer(&mut self, number: u64, put: impl FnOnce(&mut Question)) -> Option<Question> {
        let question = self.waiting.get_mut(&number)?;
        put(question);
        if question.is_complete() { self.waiting.shift_remove(&number) } else { None }
    }

    /// A question whose time is up.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Question> {
        let (number, _) = self.waiting.first().filter(|(_, question)| question.answer_by <= now)?;
        let number = *number;
        self.waiting.shift_remove(&number)
    }

    /// When the time of the first one is up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.first().map(|(_, question)| question.answer_by)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Panics if the state contradicts itself.
    pub(crate) fn check(&self) {
        assert!(self.waiting.len() <= MAX_QUESTIONS);
        let mut last = None;
        for (number, question) in &self.waiting {
            assert!(*number < self.next && !question.is_complete(), "question {number} is complete and waits");
            assert!(last <= Some(question.answer_by), "questions out of order");
            last = Some(question.answer_by);
        }
    }
}
