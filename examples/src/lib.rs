//! What the engine and the clients of these examples share: the definitions of the functions, and how to connect.
//!
//! The engine registers each of them (`src/bin/engine`), and a client calls them with the same types, or
//! does not compile. Start a controller and the engine, then any of the others; what each of them shows stands at its top.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin mandelbrot
//! ```
//!
//! All of them use the cluster of the default profile, or that of the folder which `$IPP_PROFILE_DIR` names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use remuda_client::{Array, Buffer, Client, ConnectOptions};
use serde::{Deserialize, Serialize};

remuda_client::functions! {
    #![prefix = "examples."]

    /// Sums over random paths of an option's payoff. Each batch has random numbers of its own, and always the same ones.
    pub fn price(option: AsianOption, batch: u64, paths: u64) -> Sums;

    /// How often each word is in a text, in lower case. The text travels beside the argument, and is copied nowhere.
    pub fn count_words(text: Buffer) -> BTreeMap<String, u64>;

    /// Takes so many milliseconds, and then fails if it is told to. It is async, and keeps no core busy while it waits.
    pub fn step(name: String, ms: u64, fails: bool) -> String;

    /// Where the logistic map x ← growth · x · (1 − x) settles down.
    pub fn logistic(growth: f64) -> Orbit;

    /// After how many steps the points of some rows of a picture escape, as an array of so many rows and columns.
    pub fn escapes(picture: Picture, rows: Range<usize>) -> Array<u16>;

    /// The prime factors of a number below [`FACTOR_LIMIT`], ascending. It needs a table, which its engine makes once.
    pub fn factor(number: u64) -> Vec<u64>;

    /// The start below `limit` of the longest Collatz sequence, and its length. Prints each record as it finds it.
    pub fn collatz(limit: u64) -> (u64, u32);
}

/// What [`factor`](fn@factor) takes is below this.
pub const FACTOR_LIMIT: u64 = 1_000_000_000_000;

/// The right to buy at `strike` what then is worth the mean of its price over all days. There is no formula for its value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AsianOption {
    /// The price today.
    pub spot: f64,
    /// The price to buy at.
    pub strike: f64,
    /// Interest, a year.
    pub rate: f64,
    /// How much the price swings, a year.
    pub volatility: f64,
    /// Days of trade until then, of which a year has 252.
    pub days: u32,
}

/// Of a number of draws, what their mean and its error are made of.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sums {
    /// How many.
    pub count: u64,
    /// Of all.
    pub sum: f64,
    /// Of their squares.
    pub squares: f64,
}

/// What becomes of the logistic map.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Orbit {
    /// After how many steps it is back; `None`: not within 64, it is chaos.
    pub period: Option<u32>,
    /// Its mean.
    pub mean: f64,
    /// Lyapunov's exponent: how fast neighbours part, or meet where it is negative.
    pub exponent: f64,
}

/// A picture of the Mandelbrot set.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Picture {
    /// Points in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The point in the middle: real and imaginary part.
    pub center: (f64, f64),
    /// How far apart neighbours are.
    pub step: f64,
    /// After how many steps a point counts as inside.
    pub limit: u16,
}

/// Connects to the cluster, and waits until it has an engine.
///
/// # Errors
/// When there is no controller, or no engine within half a minute. The message says what to start.
pub async fn connect() -> anyhow::Result<Client> {
    let client = Client::connect(ConnectOptions::default()).await?;
    client
        .wait_for_engines(1, Duration::from_secs(30))
        .await
        .context("the examples need their engine: cargo run --release -p remuda-examples --bin engine")?;
    Ok(client)
}
