//! How far a map is.

use futures::stream::{FuturesUnordered, Stream, StreamExt};

use super::TaskHandle;

/// How far a map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many items were answered, well or not, or never sent.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

impl Progress {
    /// How far it is, now and at each end, for tasks of so many items each; those that were never sent are done.
    pub(super) fn stream(tasks: Vec<(Option<TaskHandle>, usize)>) -> impl Stream<Item = Self> + Send + use<> {
        let mut progress = Self::default();
        let wait = FuturesUnordered::new();
        for (task, items) in tasks {
            progress.total += items;
            match task.filter(|task| !task.is_ready()) {
                None => progress.done += items,
                Some(task) => wait.push(async move {
                    task.ended().await;
                    items
                }),
            }
        }
        let later = wait.scan(progress, |progress, items| {
            progress.done += items;
            std::future::ready(Some(*progress))
        });
        futures::stream::once(std::future::ready(progress)).chain(later)
    }
}
