//! A client: maps a function over a load-balanced view, and shows what came of it.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin client -- [path/to/ipcontroller-client.json]
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_client::{Client, ConnectOptions};
use serde::{Deserialize, Serialize};

/// How many rows the picture has.
const ROWS: u32 = 24;
/// How many steps a point has to escape.
const STEPS: u32 = 2000;

/// The argument of `mandelbrot`, as the example engine has it: one row of the picture.
#[derive(Serialize)]
struct Row {
    im: f64,
    re: (f64, f64),
    points: usize,
    steps: u32,
}

/// Its result.
#[derive(Deserialize)]
struct Escapes {
    steps: Vec<u32>,
    inside: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = std::env::args_os().nth(1).map_or_else(ConnectOptions::default, ConnectOptions::file);
    let client = Client::connect(options).await?;
    client.wait_for_engines(1, Duration::from_secs(30)).await?;

    // One call: its type is that of the function.
    let view = client.load_balanced_view();
    let product = view.call(Named::<_, i64>::new("mul"), (6, 7))?.timeout(Duration::from_secs(30)).await?;
    println!("mul(6, 7) = {product}\n");

    // A map: one task for each row, wherever there is room. A row whose engine dies is tried on another.
    let row = |number| {
        let im = 1.2 - 2.4 * f64::from(number) / f64::from(ROWS - 1);
        Row { im, re: (-2.2, 0.8), points: 78, steps: STEPS }
    };
    let map = view.retries(2).label("mandelbrot").map::<_, Escapes>("mandelbrot", (0..ROWS).map(row));
    // The handles tell which engine took which row, and how long; awaiting the map itself would give the rows alone.
    let mut by_engine: BTreeMap<_, (u32, usize, i64)> = BTreeMap::new();
    for result in map.results().iter().flatten() {
        let escapes = result.get().await?;
        let shade = |steps: &u32| if *steps == STEPS { '#' } else { ['.', ' '][usize::from(*steps < 5)] };
        println!("{}", escapes.steps.iter().map(shade).collect::<String>());
        let metadata = result.metadata();
        let engine = metadata.as_ref().and_then(|metadata| metadata.engine_id);
        let took_us =
            metadata.and_then(|metadata| Some(metadata.completed?.0 - metadata.started?.0)).unwrap_or_default();
        let (rows, inside, us) = by_engine.entry(engine).or_default();
        (*rows, *inside, *us) = (*rows + 1, *inside + escapes.inside, *us + took_us);
    }

    println!("\n{:>8} {:>8} {:>8} {:>10}", "engine", "rows", "inside", "busy (ms)");
    for (engine, (rows, inside, us)) in by_engine {
        let engine = engine.map_or_else(|| "gone".to_owned(), |id| id.to_string());
        println!("{engine:>8} {rows:>8} {inside:>8} {:>10.1}", us as f64 / 1000.0);
    }
    Ok(())
}
