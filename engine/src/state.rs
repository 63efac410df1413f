//! What functions of an engine share.

use std::fmt::Display;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Something that is made once for an engine, when a function first asks for it: a model, a table, a connection.
///
/// ```
/// # use remuda_engine::State;
/// let words = State::new(|| std::fs::read_to_string("/usr/share/dict/words"));
/// let has = move |word: String| Ok::<_, remuda_engine::StateError>(words.get()?.lines().any(|line| line == word));
/// let builder = remuda_engine::Engine::builder().function("has", has);
/// ```
///
/// Cheap to clone: each function that needs it has a clone. With several [slots](crate::EngineBuilder::slots) the others wait
/// while it is made.
pub struct State<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    made: OnceLock<S>,
    /// Held while it is made.
    making: Mutex<()>,
    init: Box<dyn Fn() -> Result<S, String> + Send + Sync>,
}

/// It could not be made. The next call tries again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the function needs could not be made: {reason}")]
pub struct StateError {
    reason: String,
}

impl<S> State<S> {
    /// What `init` will make.
    pub fn new<E: Display>(init: impl Fn() -> Result<S, E> + Send + Sync + 'static) -> Self {
        let init = Box::new(move || init().map_err(|error| error.to_string()));
        Self { inner: Arc::new(Inner { made: OnceLock::new(), making: Mutex::new(()), init }) }
    }

    /// It, made now if this is the first call.
    ///
    /// # Errors
    /// What `init` fails with.
    pub fn get(&self) -> Result<&S, StateError> {
        let Inner { made, making, init } = &*self.inner;
        if let Some(state) = made.get() {
            return Ok(state);
        }
        // A panic of `init` leaves nothing half made.
        let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = made.get() {
            return Ok(state);
        }
        let state = init().map_err(|reason| StateError { reason })?;
        Ok(made.get_or_init(|| state))
    }
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for State<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("State").field(&self.inner.made.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn it_is_made_once_however_many_ask() {
        let calls = Arc::new(AtomicU32::new(0));
        let state = {
            let calls = Arc::clone(&calls);
            State::new(move || Ok::<_, String>(calls.fetch_add(1, Ordering::SeqCst)))
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(state.clone().get(), Ok(&0)));
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_told_and_the_next_call_tries_again() {
        let calls = AtomicU32::new(0);
        let init = move || if calls.fetch_add(1, Ordering::SeqCst) == 0 { Err("no file `x`") } else { Ok(7) };
        let state = State::new(init);
        let error = state.get().unwrap_err();
        assert_eq!(error.to_string(), "what the function needs could not be made: no file `x`");
        assert_eq!(state.get(), Ok(&7));
    }
}
