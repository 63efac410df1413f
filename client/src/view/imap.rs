//! Maps that never have all of their items at once.

use futures::stream::{Stream, StreamExt};
use remuda_proto::Function;

use super::LoadBalancedView;
use crate::error::TaskError;
use crate::result::ended_items;

/// How many tasks are outstanding at a time, unless told otherwise.
const MAX_OUTSTANDING: usize = 1000;

/// A map over items that come one by one, perhaps without end: [`LoadBalancedView::imap`].
///
/// It submits as it is asked for results, and has no more than [`max_outstanding`](Self::max_outstanding) tasks at a time. A
/// view with a [`chunk_size`](LoadBalancedView::chunk_size) makes one task of as many items as are there, up to that.
/// Dropping it submits no more; tasks that were submitted go on.
#[must_use = "it submits nothing until its results are asked for, by `ordered` or `as_completed`"]
pub struct Imap<F, S> {
    view: LoadBalancedView,
    function: F,
    items: S,
    max_outstanding: usize,
}

impl<F, S> Imap<F, S>
where
    F: Function,
    S: Stream<Item = F::Args>,
{
    pub(super) fn new(view: &LoadBalancedView, function: F, items: S) -> Self {
        // Nobody can ask for the output of these tasks, so no engine need tell of its end.
        let view = view.quiet(true);
        Self { view, function, items, max_outstanding: MAX_OUTSTANDING }
    }

    /// How many tasks may be outstanding at a time: 1000 unless told otherwise; 0 counts as 1. With chunks each of them is many
    /// items. Ordered results that came before their turn count.
    pub fn max_outstanding(mut self, tasks: usize) -> Self {
        self.max_outstanding = tasks.max(1);
        self
    }

    /// The results in the order of the items. An item that failed is an error in its place; the others go on.
    pub fn ordered(self) -> impl Stream<Item = Result<F::Output, TaskError>> {
        let Self { view, function, items, max_outstanding } = self;
        let tasks = items.ready_chunks(view.items_per_task()).map(move |chunk| view.submit_chunk(&function, &chunk));
        let results = tasks.map(|task| async { ended_items(task).await }).buffered(max_outstanding);
        results.flat_map(futures::stream::iter)
    }

    /// The results as they come, each with the number of its item, from 0.
    pub fn as_completed(self) -> impl Stream<Item = (usize, Result<F::Output, TaskError>)> {
        let Self { view, function, items, max_outstanding } = self;
        let numbered = items.ready_chunks(view.items_per_task()).scan(0, |next, chunk| {
            let first = *next;
            *next += chunk.len();
            std::future::ready(Some((first, chunk)))
        });
        let tasks = numbered.map(move |(first, chunk)| (first, view.submit_chunk(&function, &chunk)));
        let results = tasks.map(|(first, task)| async move { (first.., ended_items(task).await) });
        let results = results.buffer_unordered(max_outstanding);
        results.flat_map(|(numbers, results)| futures::stream::iter(numbers.zip(results)))
    }
}

impl<F: std::fmt::Debug, S> std::fmt::Debug for Imap<F, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shows = f.debug_struct("Imap");
        shows.field("function", &self.function).field("max_outstanding", &self.max_outstanding).finish_non_exhaustive()
    }
}
