//! The price of an option by simulation: batches of random paths, and an estimate that gets better with each that comes.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin monte_carlo -- 1000000    # how many paths
//! ```
//!
//! It shows a map in chunks, results as they come, and random numbers that are the same however the work is spread.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use std::pin::pin;

use anyhow::Context;
use futures::StreamExt;
use remuda_examples::{AsianOption, Sums, price};

/// Paths of a batch: some milliseconds of work.
const BATCH: u64 = 1000;
/// Batches that are sent as one task: at some milliseconds each, there would be more messages than work without.
const CHUNK: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let paths = std::env::args().nth(1).unwrap_or_else(|| "1000000".to_owned());
    let paths: u64 = paths.parse().with_context(|| format!("`{paths}` is no number of paths"))?;
    let batches = paths.div_ceil(BATCH).max(2);
    let option = AsianOption { spot: 100.0, strike: 100.0, rate: 0.05, volatility: 0.2, days: 252 };

    let client = remuda_examples::connect().await?;
    // A chunk that is lost with its engine is tried on another, and gives the same numbers there.
    let view = client.load_balanced_view().fail_unplaceable(true).retries(2).chunk_size(CHUNK).label("monte_carlo");
    let mut results = pin!(view.map(price, (0..batches).map(|batch| (option, batch, BATCH))).unordered());

    let mut total = Sums::default();
    let (mut done, mut shown) = (0, 0);
    while let Some((_, sums)) = results.next().await {
        let sums = sums?;
        total.count += sums.count;
        total.sum += sums.sum;
        total.squares += sums.squares;
        done += 1;
        let tenths = done * 10 / batches;
        if tenths > shown {
            shown = tenths;
            eprintln!("{:3} %: {}", tenths * 10, estimate(&total));
        }
    }
    println!("{}", estimate(&total));
    println!("{} paths of {} days in {batches} batches", total.count, option.days);
    Ok(())
}

/// The mean, and how far from the truth it may be in 19 of 20 cases.
fn estimate(sums: &Sums) -> String {
    let count = sums.count as f64;
    let mean = sums.sum / count;
    let variance = (sums.squares / count - mean * mean) * count / (count - 1.0);
    format!("{mean:.4} ± {:.4}", 1.96 * (variance / count).sqrt())
}
