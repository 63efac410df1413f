//! The real clocks.

use std::time::{Duration, Instant as StdInstant, SystemTime};

use remuda_proto::{Date, Instant, Now};

/// Reads both clocks for the cores. Monotonic time counts from the making of the clock, plus a second, so that a core
/// may subtract a little without reaching the start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: StdInstant,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: StdInstant::now() }
    }

    /// Both clocks at this moment.
    pub fn now(&self) -> Now {
        let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        let instant = Instant::default() + Duration::from_secs(1) + self.start.elapsed();
        Now { instant, date: Date(micros) }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
