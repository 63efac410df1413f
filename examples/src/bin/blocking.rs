//! The client in a program that is not async: `wait` where others `await`, and iterators where others have streams.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin blocking -- 360 1001 999999999989
//! ```
//!
//! It shows a connection, the engines, one call, a map with its results in order, each with its own end, and the time that it
//! took. It exits with 1 if a number has no factors.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use std::time::Instant;

use anyhow::Context;
use remuda_client::blocking::{Wait, WaitEach};
use remuda_examples::factor;

fn main() -> anyhow::Result<()> {
    let mut numbers = Vec::new();
    for word in std::env::args().skip(1) {
        numbers.push(word.parse::<u64>().with_context(|| format!("`{word}` is no number"))?);
    }
    if numbers.is_empty() {
        numbers = vec![360, 1001, 65_537, 600_851_475_143, 999_999_999_989];
    }

    let client = remuda_examples::connect().wait()?;
    for engine in client.engines() {
        eprintln!("engine {}", engine.id.map_or_else(|| "?".to_owned(), |id| id.to_string()));
    }
    let view = client.load_balanced_view().fail_unplaceable(true).label("blocking");

    // One call: this thread sleeps until the result is there.
    let table = Instant::now();
    view.call(factor, 2)?.wait()?;
    eprintln!("the first call took {:.1} ms: its engine may have made its table", table.elapsed().as_secs_f64() * 1e3);

    // Many: all are under way at once, up to a bound, and come in the order of the numbers.
    let mut failed = 0;
    for (number, factors) in numbers.iter().zip(view.imap(factor, numbers.clone()).ordered().each()) {
        match factors {
            Ok(factors) => println!("{number}: {factors:?}"),
            Err(error) => {
                failed += 1;
                println!("{number}: {error}");
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} numbers have no factors: see above", numbers.len());
    Ok(())
}
