//! Which tasks of a run were answered: a bit each.

/// What a reply turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The first to its task.
    First,
    /// Not the first.
    Again,
    /// To no task of this run.
    Foreign,
}

/// The tasks of a run, numbered on from `first`, and which were answered.
#[derive(Debug)]
pub(crate) struct Replies {
    /// Number of the first task of the run.
    first: u64,
    /// How many tasks the run has.
    tasks: u64,
    /// One bit per task, set once it was answered; those beyond `tasks` stay unset.
    bits: Vec<u64>,
    /// How many bits are set.
    answered: u64,
}

impl Replies {
    /// A run of `tasks` tasks, none answered.
    pub(crate) fn new(first: u64, tasks: u64) -> Self {
        let words = usize::try_from(tasks.div_ceil(64)).expect("a run fits into memory");
        Self { first, tasks, bits: vec![0; words], answered: 0 }
    }

    /// Notes a reply to the task of that number.
    pub(crate) fn note(&mut self, number: u64) -> Seen {
        let Some(index) = number.checked_sub(self.first).filter(|index| *index < self.tasks) else {
            return Seen::Foreign;
        };
        let word = &mut self.bits[usize::try_from(index / 64).expect("it is within the run")];
        let bit = 1 << (index % 64);
        if *word & bit != 0 {
            return Seen::Again;
        }
        *word |= bit;
        self.answered += 1;
        Seen::First
    }

    /// How many tasks were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// How many were not.
    pub(crate) fn missing(&self) -> u64 {
        self.tasks - self.answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_answered_once() {
        let mut replies = Replies::new(100, 65);
        for number in (100..165).rev() {
            assert_eq!(replies.note(number), Seen::First);
        }
        assert_eq!((replies.answered(), replies.missing()), (65, 0));
        assert_eq!(replies.note(164), Seen::Again);
        assert_eq!((replies.answered(), replies.missing()), (65, 0));
    }

    #[test]
    fn a_reply_to_another_run_counts_for_nothing() {
        let mut replies = Replies::new(100, 65);
        for number in [0, 99, 165, u64::MAX] {
            assert_eq!(replies.note(number), Seen::Foreign);
        }
        assert_eq!(replies.missing(), 65);
        assert_eq!(Replies::new(7, 0).note(7), Seen::Foreign);
    }
}
