//! The messages of tasks that have no outcome, for the case that they have to be sent again.

use std::collections::BTreeMap;

use remuda_proto::{Frames, Map, MsgId};

/// As many of the newest as fit.
#[derive(Debug)]
pub(super) struct Kept {
    /// What was sent, with its number in the order of sending.
    by_task: Map<MsgId, (u64, Frames)>,
    /// The same tasks by that number.
    by_age: BTreeMap<u64, MsgId>,
    /// The number of the next one.
    next: u64,
    /// The size of all, at most `limit_bytes`.
    bytes: usize,
    /// Most bytes kept.
    limit_bytes: usize,
}

impl Kept {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { by_task: Map::default(), by_age: BTreeMap::new(), next: 0, bytes: 0, limit_bytes }
    }

    /// Keeps the message of a task that was not sent before. The oldest make room for it.
    pub(super) fn keep(&mut self, task: MsgId, frames: Frames) {
        self.bytes += frames.body.size_bytes();
        self.by_age.insert(self.next, task.clone());
        self.by_task.insert(task, (self.next, frames));
        self.next += 1;
        while self.bytes > self.limit_bytes
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            self.forget(&oldest.clone());
        }
    }

    /// A task is not sent again.
    pub(super) fn forget(&mut self, task: &MsgId) {
        if let Some((number, frames)) = self.by_task.swap_remove(task) {
            self.by_age.remove(&number);
            self.bytes -= frames.body.size_bytes();
        }
    }

    /// What was sent, if it is kept, with a number that grows with each task.
    pub(super) fn get(&self, task: &MsgId) -> Option<&(u64, Frames)> {
        self.by_task.get(task)
    }

    /// The tasks of which something is kept.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &MsgId> {
        self.by_task.keys()
    }

    pub(super) fn check(&self) {
        let bytes: usize = self.by_task.values().map(|(_, frames)| frames.body.size_bytes()).sum();
        assert_eq!(bytes, self.bytes);
        assert!(bytes <= self.limit_bytes, "{bytes} bytes are kept");
        assert_eq!(self.by_age.len(), self.by_task.len());
        for (number, task) in &self.by_age {
            assert_eq!(self.by_task.get(task).map(|(number, _)| number), Some(number), "`{task}`");
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_proto::Frames;

    use super::*;

    fn frames(bytes: usize) -> Frames {
        let parts = ["<IDS|MSG>", "", "{}", "{}", "{}", &"x".repeat(bytes - 6)];
        let frames = Frames::from_parts(parts).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(frames.body.size_bytes(), bytes);
        frames
    }

    fn kept_of(kept: &Kept, tasks: &[&str]) -> Vec<u64> {
        kept.check();
        tasks.iter().filter_map(|task| kept.get(&MsgId::from(*task)).map(|(number, _)| *number)).collect()
    }

    #[test]
    fn the_newest_that_fit_are_kept() {
        let mut kept = Kept::new(100);
        for task in ["a", "b", "c"] {
            kept.keep(task.into(), frames(40));
        }
        assert_eq!(kept_of(&kept, &["a", "b", "c"]), [1, 2]);
        kept.forget(&"b".into());
        kept.keep("d".into(), frames(60));
        assert_eq!(kept_of(&kept, &["b", "c", "d"]), [2, 3]);
        kept.keep("e".into(), frames(101));
        assert_eq!(kept_of(&kept, &["c", "d", "e"]), [0; 0], "it takes the room of all others and does not fit either");
        kept.keep("f".into(), frames(100));
        assert_eq!(kept_of(&kept, &["f"]), [5]);
    }
}
