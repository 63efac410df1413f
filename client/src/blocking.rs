//! The same client for programs that are not async: whatever would be awaited is waited for.
//!
//! ```no_run
//! use remuda_client::blocking::{Wait, WaitEach};
//! use remuda_client::{Client, ConnectOptions, Named};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ConnectOptions::default()).wait()?;
//! let view = client.load_balanced_view();
//! let mul = Named::<(i64, i64), i64>::new("mul");
//! println!("{}", view.call(&mul, (6, 7))?.wait()?);
//! for result in view.imap(&mul, (0..1000).map(|n| (n, n))).ordered().each() {
//!     println!("{}", result?);
//! }
//! # Ok(())
//! # }
//! ```

use std::future::IntoFuture;
use std::pin::Pin;

use futures::stream::{Stream, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};

thread_local! {
    /// For timers; the sockets have a thread of their own, whoever waits.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap_or_else(|error| panic!("a thread cannot have a timer: {error}"));
}

fn wait<F: Future>(future: F) -> F::Output {
    let is_async = Handle::try_current().is_ok();
    assert!(!is_async, "`wait` was called where `await` belongs: a thread that runs async tasks must not be blocked");
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Waits on this thread for what would be awaited: a connection, a result, a map, the answer to a question.
pub trait Wait: IntoFuture + Sized {
    /// Waits for it.
    ///
    /// # Panics
    /// On a thread that runs async tasks: there it is to be awaited.
    fn wait(self) -> Self::Output {
        wait(self.into_future())
    }
}

impl<F: IntoFuture> Wait for F {}

/// Waits on this thread for each item of a stream: results as they come, output, changes of the list of engines.
pub trait WaitEach: Stream + Sized {
    /// The items, each once it is there.
    ///
    /// # Panics
    /// Its `next` does on a thread that runs async tasks: there the stream itself is to be awaited.
    fn each(self) -> Each<Self> {
        Each { stream: Box::pin(self) }
    }
}

impl<S: Stream> WaitEach for S {}

/// The items of a stream, each waited for.
#[derive(Debug)]
pub struct Each<S> {
    stream: Pin<Box<S>>,
}

impl<S: Stream> Iterator for Each<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        wait(self.stream.next())
    }
}
