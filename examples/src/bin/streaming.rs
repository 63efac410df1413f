//! Results and output as they come: a map over numbers without end, and beside it a task that says what it finds.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin streaming -- 20    # how many results
//! ```
//!
//! It shows `imap` with a bound (no more tasks are under way than that, however many numbers there are), the live output of a
//! task, and both as one stream. It ends by itself.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use std::pin::pin;

use anyhow::Context;
use futures::{StreamExt, stream};
use remuda_client::{PieceKind, TaskError};
use remuda_examples::{collatz, factor};

/// The first number that is factored.
const FIRST: u64 = 600_000_000_000;
/// How many tasks are under way.
const BOUND: usize = 8;

/// What comes.
enum News {
    Said(String),
    Factors(u64, Result<Vec<u64>, TaskError>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "20".to_owned());
    let wanted: usize = wanted.parse().with_context(|| format!("`{wanted}` is no number of results"))?;

    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).label("streaming");

    let search = view.call(collatz, 1_000_000)?;
    // Ends with the task's output.
    let said = search.live_output().filter_map(async |piece| match piece.kind {
        PieceKind::Stdout(text) => Some(News::Said(text)),
        _ => None,
    });
    // Never ends; what comes after those that are wanted is not asked for, but for what is under way by then.
    let factors = view.imap(factor, FIRST..).max_outstanding(BOUND).as_completed();
    let factors = factors.take(wanted).map(|(number, factors)| News::Factors(FIRST + number as u64, factors));

    let mut news = pin!(stream::select(factors, said));
    while let Some(news) = news.next().await {
        match news {
            News::Said(text) => eprint!("{text}"),
            News::Factors(number, factors) => {
                let factors: Vec<_> = factors?.iter().map(u64::to_string).collect();
                println!("{number} = {}", factors.join(" · "));
            }
        }
    }
    let (start, length) = search.await?;
    eprintln!("the longest begins at {start}, with {length} steps");
    Ok(())
}
