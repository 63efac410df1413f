//! An engine of your own: Rust functions that any client of the cluster can call, those of all these examples.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine
//! ```
//!
//! It shows functions that give a value or a `Result`, one that shares a table with all its calls, an async one, one that
//! prints as it goes, and an end that tells the controller. Start as many as you like; Ctrl-C ends one.

#![allow(clippy::print_stderr, reason = "a program that is looked at says what it does")]

mod work;

use std::time::Duration;

use anyhow::Context;
use remuda_engine::{Engine, Place, State, read_engine};
use remuda_examples::{collatz, count_words, escapes, factor, logistic, price, step};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> anyhow::Result<()> {
    // Made at the first call that asks for it, and never again: it might as well be a model of some gigabytes.
    let primes = State::new(|| {
        eprintln!("making the table of primes");
        Ok::<_, String>(work::sieve(1_000_000))
    });
    let slots = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let engine = Engine::builder()
        .slots(slots)
        .label("examples")
        .register(price, |(option, batch, paths)| work::price(&option, batch, paths))
        .register(count_words, |text| work::count_words(&text))
        .register(logistic, work::logistic)
        .register(escapes, |(picture, rows)| work::escapes(&picture, rows))
        .register(factor, move |number| work::factor(primes.get().map_err(|error| error.to_string())?, number))
        .register(collatz, work::collatz)
        .register_async(step, |(name, ms, fails)| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if fails { Err(format!("{name} was told to fail")) } else { Ok(name) }
        })
        .build()?;

    // Ctrl-C lets the engine say goodbye, so that the controller need not wait for missed heartbeats.
    let stop = engine.stop_handle();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    std::thread::spawn(move || signals.forever().for_each(|_| stop.stop()));

    let file = Place::default().find().engine_file();
    let connection = read_engine(&file).context("start a controller first: remuda controller")?;
    eprintln!("an engine with {slots} slots, for the controller of {}; Ctrl-C ends it", file.display());
    let ending = engine.run(&connection).with_context(|| format!("cannot serve the cluster of {}", file.display()))?;
    anyhow::ensure!(ending.is_clean(), "the engine ended: {ending}");
    Ok(())
}
