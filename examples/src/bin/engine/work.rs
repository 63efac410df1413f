//! What the functions do: plain Rust, which knows nothing of the cluster but where it prints.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use remuda_engine::{Array, Task};
use remuda_examples::{AsianOption, FACTOR_LIMIT, Orbit, Picture, Sums};

pub(crate) fn price(option: &AsianOption, batch: u64, paths: u64) -> Sums {
    // One seed for all, and a stream of its own for each batch: no two share a number, wherever they run.
    let mut random = ChaCha8Rng::seed_from_u64(2024);
    random.set_stream(batch);
    let days = f64::from(option.days);
    let day = 1.0 / 252.0;
    let drift = (option.rate - option.volatility.powi(2) / 2.0) * day;
    let swing = option.volatility * day.sqrt();
    let discount = (-option.rate * days * day).exp();
    let mut sums = Sums::default();
    for _ in 0..paths {
        let (mut price, mut total) = (option.spot, 0.0);
        for _ in 0..option.days {
            price *= (drift + swing * normal(&mut random)).exp();
            total += price;
        }
        let payoff = discount * (total / days - option.strike).max(0.0);
        sums.count += 1;
        sums.sum += payoff;
        sums.squares += payoff * payoff;
    }
    sums
}

/// A draw from the normal distribution, by Box and Muller.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    // 53 bits, from just above 0 to 1.
    let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()
}

pub(crate) fn count_words(text: &[u8]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let text = String::from_utf8_lossy(text).to_lowercase();
    for word in text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()) {
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        }
    }
    counts
}

pub(crate) fn logistic(growth: f64) -> Result<Orbit, String> {
    const SETTLING: u32 = 100_000;
    const LOOKED_AT: u32 = 500_000;
    let mut x = 0.5;
    for step in 0..SETTLING {
        x = growth * x * (1.0 - x);
        if !(0.0..=1.0).contains(&x) {
            return Err(format!("with a growth of {growth} it runs away at step {}", step + 1));
        }
    }
    let (settled, mut period, mut sum, mut logs) = (x, None, 0.0, 0.0);
    for step in 1..=LOOKED_AT {
        logs += (growth * (1.0 - 2.0 * x)).abs().max(f64::MIN_POSITIVE).ln();
        x = growth * x * (1.0 - x);
        sum += x;
        if period.is_none() && step <= 64 && (x - settled).abs() < 1e-9 {
            period = Some(step);
        }
    }
    Ok(Orbit { period, mean: sum / f64::from(LOOKED_AT), exponent: logs / f64::from(LOOKED_AT) })
}

pub(crate) fn escapes(picture: &Picture, rows: Range<usize>) -> Result<Array<u16>, String> {
    if rows.end > picture.height {
        return Err(format!("the picture has {} rows, and no row {}", picture.height, rows.end - 1));
    }
    let Picture { width, height, center, step, limit } = *picture;
    let from_middle = |at: usize, of: usize| (at as f64 - (of as f64 - 1.0) / 2.0) * step;
    let escape = |re: f64, im: f64| {
        let (mut x, mut y) = (0.0, 0.0);
        for count in 0..limit {
            if x * x + y * y > 4.0 {
                return count;
            }
            (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
        }
        limit
    };
    let steps = rows.clone().flat_map(|row| {
        let im = center.1 - from_middle(row, height);
        (0..width).map(move |column| escape(center.0 + from_middle(column, width), im))
    });
    Array::new([rows.len(), width], steps.collect()).map_err(|error| error.to_string())
}

/// All primes below `limit`.
pub(crate) fn sieve(limit: usize) -> Vec<u64> {
    let mut composite = vec![false; limit];
    let mut primes = Vec::new();
    for number in 2..limit {
        if !composite[number] {
            primes.push(number as u64);
            (number * number..limit).step_by(number).for_each(|multiple| composite[multiple] = true);
        }
    }
    primes
}

pub(crate) fn factor(primes: &[u64], number: u64) -> Result<Vec<u64>, String> {
    if !(1..FACTOR_LIMIT).contains(&number) {
        return Err(format!("{number} is not from 1 to {}", FACTOR_LIMIT - 1));
    }
    let (mut rest, mut factors) = (number, Vec::new());
    for &prime in primes.iter().take_while(|&&prime| prime * prime <= number) {
        while rest % prime == 0 {
            factors.push(prime);
            rest /= prime;
        }
    }
    factors.extend((rest > 1).then_some(rest));
    Ok(factors)
}

pub(crate) fn collatz(limit: u64) -> Result<(u64, u32), String> {
    let task = Task::current().ok_or("no task runs on this thread")?;
    let mut longest = (1, 1);
    for start in 1..limit {
        let (mut number, mut length) = (start, 1);
        while number != 1 {
            number = if number % 2 == 0 { number / 2 } else { 3 * number + 1 };
            length += 1;
        }
        if length > longest.1 {
            longest = (start, length);
            task.print(format!("from {start} it takes {length} steps\n"));
        }
        if start % 4096 == 0 && task.is_stopped() {
            return Err(format!("stopped at {start}"));
        }
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_batches_share_their_random_numbers_and_each_is_the_same_again() {
        let option = AsianOption { spot: 100.0, strike: 90.0, rate: 0.0, volatility: 0.2, days: 10 };
        let sum = |batch| price(&option, batch, 50).sum;
        let mut sums: Vec<f64> = (0..20).map(sum).collect();
        assert_eq!(sum(7).to_bits(), sums[7].to_bits());
        sums.sort_by(f64::total_cmp);
        assert!(sums.windows(2).all(|two| two[0] < two[1]), "{sums:?}");
    }
}
