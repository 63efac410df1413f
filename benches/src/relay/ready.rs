//! Which engine gets the next task: the one that has waited longest among those with room.

use std::collections::VecDeque;

/// Engines by number, in the order of their arrival, and which of them have room.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    /// Most tasks outstanding on one engine. Never 0.
    hwm: u32,
    /// Tasks outstanding on each engine. Never above `hwm`.
    load: Vec<u32>,
    /// Exactly the engines below `hwm`, each once; the next to be given a task stands in front.
    ready: VecDeque<usize>,
}

impl ReadyQueue {
    /// A queue without engines.
    pub(crate) fn new(hwm: u32) -> Self {
        assert!(hwm > 0, "an engine that may hold no task would never get one");
        Self { hwm, load: Vec::new(), ready: VecDeque::new() }
    }

    /// A new engine, and its number.
    pub(crate) fn add(&mut self) -> usize {
        self.load.push(0);
        self.ready.push_back(self.load.len() - 1);
        self.load.len() - 1
    }

    /// Whether any engine has room.
    pub(crate) fn has_room(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The engine that would get the next task.
    pub(crate) fn next(&self) -> Option<usize> {
        self.ready.front().copied()
    }

    /// Gives a task to the engine that [`Self::next`] named.
    pub(crate) fn assign(&mut self, number: usize) {
        let front = self.ready.pop_front();
        assert_eq!(front, Some(number), "a task went to an engine whose turn it was not");
        self.load[number] += 1;
        if self.load[number] < self.hwm {
            self.ready.push_back(number);
        }
    }

    /// An engine answered. One that answers what it was never given is let be.
    pub(crate) fn finish(&mut self, number: usize) {
        let load = &mut self.load[number];
        if *load == self.hwm {
            self.ready.push_back(number);
        }
        *load = load.saturating_sub(1);
    }

    /// Panics if the state contradicts itself.
    #[cfg(test)]
    fn check(&self) {
        let mut ready: Vec<usize> = self.ready.iter().copied().collect();
        ready.sort_unstable();
        let below: Vec<usize> = (0..self.load.len()).filter(|&number| self.load[number] < self.hwm).collect();
        assert_eq!(ready, below, "{self:?}");
        assert!(self.load.iter().all(|&load| load <= self.hwm), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Assigns as many tasks as find room, and says to whom.
    fn fill(queue: &mut ReadyQueue) -> Vec<usize> {
        std::iter::from_fn(|| {
            let number = queue.next()?;
            queue.assign(number);
            queue.check();
            Some(number)
        })
        .collect()
    }

    #[test]
    fn no_engine_gets_more_than_its_share() {
        let mut queue = ReadyQueue::new(2);
        assert!(!queue.has_room());
        for _ in 0..3 {
            queue.add();
        }
        assert_eq!(fill(&mut queue), [0, 1, 2, 0, 1, 2]);
        assert!(!queue.has_room());
    }

    #[test]
    fn an_engine_that_answers_is_ready_again_once() {
        let mut queue = ReadyQueue::new(2);
        queue.add();
        queue.add();
        fill(&mut queue);
        for number in [1, 1, 0] {
            queue.finish(number);
            queue.check();
        }
        assert_eq!(fill(&mut queue), [1, 0, 1]);
    }

    #[test]
    fn an_answer_to_nothing_makes_no_room() {
        let mut queue = ReadyQueue::new(1);
        let number = queue.add();
        queue.finish(number);
        queue.check();
        assert_eq!(fill(&mut queue), [number]);
    }
}
