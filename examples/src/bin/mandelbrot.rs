//! A picture of the Mandelbrot set, computed in bands of rows and written as they come.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin mandelbrot -- picture.ppm 1200    # where to, how wide
//! ```
//!
//! It shows arrays as results (each band is a block of numbers that travels as it lies in memory), a map that gives results in
//! order with a bound on how many are under way, and what the engines had to do.
//!
//! The file is a PPM: a line of text and the bytes of the pixels. Most viewers show it, and it takes no library; PNG would be
//! smaller, and is one `magick picture.ppm picture.png` away.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::pin::pin;

use anyhow::Context;
use futures::StreamExt;
use remuda_examples::{Picture, escapes};

/// Rows of one task.
const BAND: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let file = args.next().map_or_else(|| PathBuf::from("mandelbrot.ppm"), PathBuf::from);
    let width = args.next().map_or_else(|| "900".to_owned(), |word| word.to_string_lossy().into_owned());
    let width: usize = width.parse().with_context(|| format!("`{width}` is no width in points"))?;
    anyhow::ensure!((2..=20_000).contains(&width), "a picture is 2 to 20000 points wide, not {width}");
    let picture = Picture { width, height: width * 2 / 3, center: (-0.75, 0.0), step: 3.6 / width as f64, limit: 1000 };

    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).retries(2).label("mandelbrot");
    let bands = (0..picture.height).step_by(BAND).map(|row| (picture, row..picture.height.min(row + BAND)));
    let mut results = pin!(view.imap(escapes, bands).max_outstanding(64).ordered());

    let cannot_write = || format!("cannot write {}", file.display());
    let mut pixels = BufWriter::new(File::create(&file).with_context(cannot_write)?);
    writeln!(pixels, "P6 {} {} 255", picture.width, picture.height).with_context(cannot_write)?;
    let mut inside = 0;
    while let Some(band) = results.next().await {
        // An `Array` is a slice: as many numbers as its shape says, row by row.
        for &steps in band?.iter() {
            pixels.write_all(&color(steps, picture.limit)).with_context(cannot_write)?;
            inside += usize::from(steps == picture.limit);
        }
    }
    pixels.flush().with_context(cannot_write)?;

    let points = picture.width * picture.height;
    println!("{}: {} by {} points", file.display(), picture.width, picture.height);
    println!("{:.1} % inside, area {:.3}", 100.0 * inside as f64 / points as f64, inside as f64 * picture.step.powi(2));
    for (id, queue) in client.queue_status().await?.engines {
        eprintln!("engine {id} has finished {} tasks", queue.completed);
    }
    Ok(())
}

/// Black inside; outside from dark blue over white to brown, slower the further out.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
fn color(steps: u16, limit: u16) -> [u8; 3] {
    if steps == limit {
        return [0, 0, 0];
    }
    let phase = f64::from(steps + 1).ln() * 1.3;
    [0.0, 0.5, 1.0].map(|shift| (127.5 - 127.5 * (phase + shift).cos()) as u8)
}
