//! Weights that can be drawn from.

/// A list of weights with prefix sums: changing one, and finding where a sum falls, take O(log n).
#[derive(Debug, Default)]
pub(super) struct Fenwick {
    /// `sums[i]` is the sum of the `lowest_bit(i + 1)` weights that end with weight `i`.
    sums: Vec<u64>,
    /// All weights together.
    total: u64,
}

fn lowest_bit(at: usize) -> usize {
    at & at.wrapping_neg()
}

impl Fenwick {
    /// All weights together.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many weights there are.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// Appends a weight of 0.
    pub(super) fn push(&mut self) {
        let at = self.sums.len() + 1;
        let (mut below, start, mut sum) = (at - 1, at - lowest_bit(at), 0);
        while below > start {
            sum += self.sums[below - 1];
            below -= lowest_bit(below);
        }
        self.sums.push(sum);
    }

    /// Removes the last weight, which has to be 0.
    pub(super) fn pop(&mut self) {
        self.sums.pop();
    }

    /// Changes weight `at`, which was `old`, to `new`.
    pub(super) fn change(&mut self, at: usize, old: u64, new: u64) {
        self.total = self.total - old + new;
        let mut node = at + 1;
        while node <= self.sums.len() {
            self.sums[node - 1] = self.sums[node - 1] - old + new;
            node += lowest_bit(node);
        }
    }

    /// The weight in which `sum` falls when all are laid end to end; `sum` is less than the total.
    pub(super) fn find(&self, mut sum: u64) -> usize {
        assert!(sum < self.total, "{sum} is beyond the total of {}", self.total);
        let mut at = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if at + step <= self.sums.len() && self.sums[at + step - 1] <= sum {
                at += step;
                sum -= self.sums[at - 1];
            }
            step /= 2;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_found_where_a_walk_finds_it() {
        let mut fenwick = Fenwick::default();
        let mut weights: Vec<u64> = Vec::new();
        for round in 0..400_u64 {
            // Grow twice, change one, shrink once, so that every shape of the tree comes by.
            (0..2).for_each(|_| fenwick.push());
            weights.resize(weights.len() + 2, 0);
            let at = usize::try_from(round * 7919).unwrap() % weights.len();
            let new = round * round % 13;
            fenwick.change(at, weights[at], new);
            weights[at] = new;
            let last = weights.pop().unwrap();
            fenwick.change(weights.len(), last, 0);
            fenwick.pop();
            assert_eq!((fenwick.len(), fenwick.total()), (weights.len(), weights.iter().sum()));
            let laid: Vec<usize> =
                weights.iter().enumerate().flat_map(|(at, weight)| (0..*weight).map(move |_| at)).collect();
            for (sum, at) in laid.into_iter().enumerate() {
                assert_eq!(fenwick.find(sum as u64), at, "{sum} in {weights:?}");
            }
        }
    }
}
