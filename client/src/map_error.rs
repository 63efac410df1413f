//! The failure of a map.

use std::ops::Range;

use crate::error::TaskError;

/// Some items of a map failed. What the others gave is kept.
#[derive(Debug)]
pub struct MapError<T> {
    /// The results of the items that succeeded, each with its number from 0, in order.
    pub succeeded: Vec<(usize, T)>,
    /// What failed, in the order of the items; not empty.
    pub failures: Vec<MapFailure>,
    /// How many items there were.
    pub total: usize,
}

/// Items of a map that failed together: one, commonly; all of a chunk where its task was lost.
#[derive(Clone, Debug)]
pub struct MapFailure {
    /// Their numbers, from 0.
    pub items: Range<usize>,
    /// Why.
    pub error: TaskError,
}

impl<T> MapError<T> {
    /// How many items failed.
    pub fn failed(&self) -> usize {
        self.failures.iter().map(|failure| failure.items.len()).sum()
    }

    /// The first failure, in the order of the items.
    pub fn first(&self) -> &MapFailure {
        &self.failures[0]
    }

    /// What came of each item, in their order.
    pub fn into_results(self) -> Vec<Result<T, TaskError>> {
        let failed = self.failures.into_iter().flat_map(|MapFailure { items, error }| {
            let each = std::iter::repeat_n(error, items.len());
            items.zip(each.map(Err))
        });
        let succeeded = self.succeeded.into_iter().map(|(item, value)| (item, Ok(value)));
        let mut all: Vec<_> = succeeded.chain(failed).collect();
        all.sort_unstable_by_key(|(item, _)| *item);
        all.into_iter().map(|(_, result)| result).collect()
    }

    /// The first failure's error.
    pub fn into_first(mut self) -> TaskError {
        self.failures.swap_remove(0).error
    }
}

impl<T> std::fmt::Display for MapError<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (failed, total, first) = (self.failed(), self.total, self.first().items.start);
        write!(f, "{failed} of {total} items failed, the first of them number {first}")
    }
}

impl<T: std::fmt::Debug> std::error::Error for MapError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.first().error)
    }
}

/// What of a map has ended, put together.
#[cfg(feature = "io")]
#[derive(Debug)]
pub(crate) struct Gathering<T> {
    succeeded: Vec<(usize, T)>,
    failures: Vec<MapFailure>,
    total: usize,
}

#[cfg(feature = "io")]
impl<T> Gathering<T> {
    pub(crate) fn new() -> Self {
        Self { succeeded: Vec::new(), failures: Vec::new(), total: 0 }
    }

    /// The next item.
    pub(crate) fn push(&mut self, result: Result<T, TaskError>) {
        let at = self.total;
        match result {
            Ok(value) => {
                self.succeeded.push((at, value));
                self.total += 1;
            }
            Err(error) => self.fail(1, error),
        }
    }

    /// So many items that failed together.
    pub(crate) fn fail(&mut self, items: usize, error: TaskError) {
        let items = self.total..self.total + items;
        self.total = items.end;
        if !items.is_empty() {
            self.failures.push(MapFailure { items, error });
        }
    }

    /// All results in order, or an error that keeps what succeeded.
    pub(crate) fn finish(self) -> Result<Vec<T>, MapError<T>> {
        let Self { succeeded, failures, total } = self;
        if failures.is_empty() {
            return Ok(succeeded.into_iter().map(|(_, value)| value).collect());
        }
        Err(MapError { succeeded, failures, total })
    }
}

#[cfg(all(test, feature = "io"))]
mod tests {
    use super::*;

    #[test]
    fn a_map_gives_all_in_order_or_keeps_what_succeeded() {
        let mut all = Gathering::new();
        all.push(Ok(1));
        all.push(Ok(2));
        assert_eq!(all.finish().unwrap(), [1, 2]);

        let mut some = Gathering::new();
        some.push(Ok(1));
        some.fail(2, TaskError::Disconnected);
        some.fail(0, TaskError::Disconnected);
        some.push(Ok(4));
        some.push(Err(TaskError::Disconnected));
        let error = some.finish().unwrap_err();
        assert_eq!(error.succeeded, [(0, 1), (3, 4)]);
        let failed: Vec<_> = error.failures.iter().map(|failure| failure.items.clone()).collect();
        assert_eq!(failed, [1..3, 4..5]);
        assert_eq!(error.to_string(), "3 of 5 items failed, the first of them number 1");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the client is disconnected");
        let each: Vec<Option<i32>> = error.into_results().into_iter().map(Result::ok).collect();
        assert_eq!(each, [Some(1), None, None, Some(4), None]);
    }
}
