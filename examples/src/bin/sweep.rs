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
use remuda_examples::{Orbit, logistic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |word: &String| word.parse::<f64>().with_context(|| format!("`{word}` is no number"));
    let (from, to, points) = match &words[..] {
        [] => (3.4, 4.0125, 50),
        [from, to, points] => {
            let points = points.parse().ok().filter(|points| (2..=100_000).contains(points));
            (number(from)?, number(to)?, points.context("give 2 to 100000 points: sweep FROM TO POINTS")?)
        }
        _ => anyhow::bail!("give nothing, or three numbers: sweep FROM TO POINTS"),
    };
    let growths: Vec<f64> =
        (0..points).map(|at: u32| from + (to - from) * f64::from(at) / f64::from(points - 1)).collect();

    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).label("sweep");
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta}")?);
    let sweep = view.map(logistic, growths.iter().copied()).get_with_bar(&bar).await;

    let rows: Vec<_> = match sweep {
        Ok(orbits) => orbits.into_iter().map(Ok).collect(),
        Err(error) => {
            eprintln!("{} of {} points failed", error.failed(), error.total);
            error.into_results()
        }
    };

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
