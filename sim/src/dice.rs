//! Randomness: one seed, and a generator of its own for each concern.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The random draws of one concern. One more draw here leaves those of every other concern as they were.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The generator of that name under that seed. Only the first 24 bytes of the name count.
    pub fn new(seed: u64, concern: &str) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = &concern.as_bytes()[..concern.len().min(24)];
        key[8..8 + name.len()].copy_from_slice(name);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`, or 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias of a product over 64 bits is far below what a run could notice.
        u64::try_from((u128::from(self.number()) * u128::from(limit)) >> 64).unwrap_or(0)
    }

    /// An index into something of that length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Whether something of that many percent happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// One of these, by weight; `None` if all weights are 0.
    pub fn weighted<T: Copy>(&mut self, from: &[(T, u64)]) -> Option<T> {
        let total = from.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        from.iter().find_map(|(value, weight)| {
            if at < *weight {
                return Some(*value);
            }
            at -= weight;
            None
        })
    }

    /// A time from `low` to `high`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// A time from 0 to many times `mean`: short ones often, long ones sometimes.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let spread = [1, 2, 2, 3, 8];
        let high = mean * *self.pick(&spread) / 2;
        self.duration(Duration::ZERO, high)
    }

    /// Weights of a swarm: some of them are 0, so that a run does not have everything.
    pub fn swarm<T: Copy>(&mut self, all: &[T]) -> Vec<(T, u64)> {
        let off = self.between(0, 60);
        all.iter().map(|one| (*one, if self.percent(off) { 0 } else { self.between(1, 10) })).collect()
    }

    /// 16 bytes for an id.
    pub fn id(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concerns_draw_independently_of_one_another() {
        let (mut network, mut faults) = (Dice::new(7, "network"), Dice::new(7, "faults"));
        let first = faults.number();
        network.number();
        let mut again = Dice::new(7, "faults");
        assert_eq!(again.number(), first);
        assert_ne!(Dice::new(7, "network").number(), first);
        assert_ne!(Dice::new(8, "faults").number(), first);
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut dice = Dice::new(1, "bounds");
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert!(dice.index(4) < 4);
            assert_eq!(dice.weighted(&[('a', 0), ('b', 2), ('c', 0)]), Some('b'));
        }
        assert_eq!(dice.weighted(&[('a', 0)]), None);
        assert_eq!(dice.below(0), 0);
        assert!(!dice.percent(0) && dice.percent(100));
    }
}
