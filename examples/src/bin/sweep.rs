//! A sweep over one parameter, with a progress bar: where the logistic map settles down, by its growth.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin sweep -- 3.4 4.0125 50    # from, to, points
//! ```
//!
//! It shows a map whose failures lose nothing: the last point runs away, and is shown so in its row. The bar is on stderr,
//! and only if that is a terminal; the table is on stdout.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use remuda_client::TaskError;
use remuda_examples::{Orbit, logistic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let numbers = std::env::args().skip(1).map(|word| word.parse().with_context(|| format!("`{word}` is no number")));
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    let (from, to, points) = match numbers[..] {
        [] => (3.4, 4.0125, 50),
        [from, to, points] if (2.0..100_000.0).contains(&points) => (from, to, points as u32),
        _ => anyhow::bail!("give nothing, or three numbers: sweep FROM TO POINTS, with 2 points or more"),
    };
    let growths: Vec<f64> = (0..points).map(|at| from + (to - from) * f64::from(at) / f64::from(points - 1)).collect();

    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).label("sweep");
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta}")?);
    let sweep = view.map(logistic, growths.iter().copied()).get_with_bar(&bar).await;

    let mut rows: Vec<Result<Orbit, TaskError>> = Vec::new();
    match sweep {
        Ok(orbits) => rows.extend(orbits.into_iter().map(Ok)),
        Err(error) => {
            // What failed goes between what did not, in the order of the points.
            let failed = |failure: &remuda_client::MapFailure| {
                failure
                    .items
                    .clone()
                    .map({
                        let error = failure.error.clone();
                        move |number| (number, Err(error.clone()))
                    })
                    .collect::<Vec<_>>()
            };
            let mut all: Vec<_> = error.failures.iter().flat_map(failed).collect();
            eprintln!("{} of {} points failed", error.failed(), error.total);
            all.extend(error.succeeded.into_iter().map(|(number, orbit)| (number, Ok(orbit))));
            all.sort_by_key(|(number, _)| *number);
            rows.extend(all.into_iter().map(|(_, row)| row));
        }
    }

    println!("{:>8} {:>8} {:>10} {:>10}", "growth", "period", "mean", "exponent");
    for (growth, row) in growths.iter().zip(rows) {
        match row {
            Ok(Orbit { period, mean, exponent }) => {
                let period = period.map_or_else(|| "chaos".to_owned(), |period| period.to_string());
                println!("{growth:>8.4} {period:>8} {mean:>10.6} {exponent:>10.6}");
            }
            Err(error) => println!("{growth:>8.4} {:>8} {error}", "-"),
        }
    }
    Ok(())
}
