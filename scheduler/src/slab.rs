//! Values under small numbers that are used again.

/// Values under small numbers. A number is free again once its value is removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// The values; `None` exactly at the numbers in `free`.
    slots: Vec<Option<T>>,
    /// Numbers to use again, last freed first.
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts a value in and returns its number.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(value);
            return at;
        }
        let at = u32::try_from(self.slots.len()).expect("more than 4 billion values at a time");
        self.slots.push(Some(value));
        at
    }

    /// Takes a value out. Memory goes back when the last one is gone.
    pub(crate) fn remove(&mut self, at: u32) -> T {
        let value = self.slots[at as usize].take();
        let value = value.unwrap_or_else(|| panic!("nothing is stored under {at}"));
        self.free.push(at);
        if self.free.len() == self.slots.len() {
            self.slots.clear();
            self.free.clear();
            self.slots.shrink_to(1024);
            self.free.shrink_to(1024);
        }
        value
    }

    /// The value under a number that may be free.
    pub(crate) fn find(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All values, by ascending number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }

    /// All values, by ascending number.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.slots).filter_map(|(at, slot)| Some((at, slot.as_mut()?)))
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, at: u32) -> &T {
        self.slots[at as usize].as_ref().unwrap_or_else(|| panic!("nothing is stored under {at}"))
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.slots[at as usize].as_mut().unwrap_or_else(|| panic!("nothing is stored under {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_once_it_is_free() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!((slab[a], slab[b], slab.len()), ('a', 'b', 2));
        assert_eq!(slab.remove(a), 'a');
        assert_eq!((slab.find(a), slab.find(b), slab.find(99)), (None, Some(&'b'), None));
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(b, &'b')]);
        assert_eq!(slab.insert('c'), a);
        slab.iter_mut().for_each(|(_, value)| *value = 'x');
        assert_eq!((slab[a], slab[b]), ('x', 'x'));
    }

    #[test]
    fn memory_goes_back_when_the_last_value_is_gone() {
        let mut slab = Slab::new();
        let numbers: Vec<u32> = (0..10_000).map(|value| slab.insert(value)).collect();
        for number in numbers {
            slab.remove(number);
        }
        assert_eq!(slab.len(), 0);
        assert!(slab.slots.capacity() <= 1024 && slab.free.capacity() <= 1024);
    }

    #[test]
    #[should_panic(expected = "nothing is stored under 0")]
    fn what_was_removed_is_not_there() {
        let mut slab = Slab::new();
        let at = slab.insert(1);
        slab.insert(2);
        slab.remove(at);
        let _ = slab[at];
    }
}
