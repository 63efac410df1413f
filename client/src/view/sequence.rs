//! What can be split over engines, and put together again.

use std::ops::Range;

use remuda_proto::value::{Array, Element};
use serde::Serialize;

/// A sequence that [`DirectView::scatter`](crate::DirectView::scatter) splits and [`gather`](crate::DirectView::gather) puts together: a
/// `Vec`, or the rows of an [`Array`].
pub trait Sequence: Sized + sealed::Sealed {
    /// What a part of it is.
    type Part<'a>: Serialize
    where
        Self: 'a;

    /// How many items, or rows, it has.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of its items, all of which it has.
    fn part(&self, items: Range<usize>) -> Self::Part<'_>;

    /// All of the parts in their order, of which there is one at least.
    ///
    /// # Errors
    /// The number of a part that does not go with the first, and why.
    fn join(parts: Vec<Self>) -> Result<Self, (usize, String)>;
}

mod sealed {
    /// What is a sequence for Python too.
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Vec<T> {}

impl<T: Serialize> Sequence for Vec<T> {
    type Part<'a>
        = &'a [T]
    where
        T: 'a;

    fn len(&self) -> usize {
        self.len()
    }

    fn part(&self, items: Range<usize>) -> &[T] {
        &self[items]
    }

    fn join(parts: Vec<Self>) -> Result<Self, (usize, String)> {
        Ok(parts.into_iter().flatten().collect())
    }
}

impl<T: Element> sealed::Sealed for Array<T> {}

impl<T: Element> Sequence for Array<T> {
    type Part<'a>
        = Self
    where
        T: 'a;

    fn len(&self) -> usize {
        // An array without dimensions is one item.
        self.shape().first().copied().unwrap_or(1)
    }

    fn part(&self, items: Range<usize>) -> Self {
        let row: usize = self.shape().iter().skip(1).product::<usize>() * size_of::<T>();
        let shape: Vec<usize> = [items.len()].into_iter().chain(self.shape().iter().skip(1).copied()).collect();
        let data = self.bytes().slice(items.start * row..items.end * row);
        Self::from_bytes(shape, data).expect("so many rows have so many bytes")
    }

    fn join(parts: Vec<Self>) -> Result<Self, (usize, String)> {
        let [first, ..] = parts.as_slice() else { return Ok(Self::from(Vec::new())) };
        let Some((_, row)) = first.shape().split_first() else {
            return Err((0, "an array without dimensions has no rows to put together".to_owned()));
        };
        let mut rows = 0;
        for (at, part) in parts.iter().enumerate() {
            if part.shape().get(1..) != Some(row) {
                let (shape, first) = (part.shape(), first.shape());
                return Err((at, format!("an array of shape {shape:?} does not go behind one of shape {first:?}")));
            }
            rows += part.len();
        }
        let shape: Vec<usize> = [rows].into_iter().chain(row.iter().copied()).collect();
        let mut numbers = Vec::with_capacity(parts.iter().map(|part| part.as_slice().len()).sum());
        for part in &parts {
            numbers.extend_from_slice(part);
        }
        Self::new(shape, numbers).map_err(|error| (0, error.to_string()))
    }
}
