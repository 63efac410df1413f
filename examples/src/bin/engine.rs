//! An engine of your own: Rust functions that any client of the cluster can call.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine -- [path/to/ipcontroller-engine.json]
//! ```
//!
//! Functions take what serde can read, and give what serde can write. An error is the task's error, a panic too.

use std::path::PathBuf;

use anyhow::Context;
use remuda_engine::{Engine, Place, read_engine};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The argument of `mandelbrot`: one row of the picture.
#[derive(Clone, Copy, Deserialize)]
struct Row {
    /// Imaginary part of all points of the row.
    im: f64,
    /// Real parts of the first and the last point.
    re: (f64, f64),
    /// How many points.
    points: usize,
    /// How many steps a point has to escape.
    steps: u32,
}

/// Its result.
#[derive(Serialize)]
struct Escapes {
    /// After how many steps each point escaped.
    steps: Vec<u32>,
    /// How many did not.
    inside: usize,
}

fn mandelbrot(row: Row) -> Result<Escapes, String> {
    if row.points < 2 {
        return Err(format!("a row has two points or more, not {}", row.points));
    }
    let step = (row.re.1 - row.re.0) / (row.points - 1) as f64;
    let escape = |at: usize| {
        let (re, im) = (row.re.0 + step * at as f64, row.im);
        let (mut x, mut y) = (0.0, 0.0);
        for count in 0..row.steps {
            if x * x + y * y > 4.0 {
                return count;
            }
            (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
        }
        row.steps
    };
    let steps: Vec<u32> = (0..row.points).map(escape).collect();
    let inside = steps.iter().filter(|steps| **steps == row.steps).count();
    Ok(Escapes { steps, inside })
}

fn main() -> anyhow::Result<()> {
    let file = std::env::args_os().nth(1).map_or_else(|| Place::default().find().engine_file(), PathBuf::from);
    let connection = read_engine(&file)?;
    let engine = Engine::builder()
        .function("mul", |(a, b): (i64, i64)| a.checked_mul(b).ok_or("the product is too large"))
        .function("mandelbrot", mandelbrot)
        .label("example")
        .build()?;

    // Ctrl-C lets the engine say goodbye, so that the controller need not wait for missed heartbeats.
    let stop = engine.stop_handle();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    std::thread::spawn(move || signals.forever().for_each(|_| stop.stop()));

    let ending = engine.run(&connection).with_context(|| format!("cannot serve the cluster of {}", file.display()))?;
    anyhow::ensure!(ending.is_clean(), "the engine ended: {ending}");
    Ok(())
}
