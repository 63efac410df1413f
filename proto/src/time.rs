//! Time as the cores see it: handed in by whoever drives them.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point of monotonic time, in nanoseconds since some start. For timeouts and for order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    /// Saturates some 584 years after the start.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The start of 1970.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// A wall-clock date: microseconds since 1970 in UTC. For headers and records only, never for timeouts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i64);

impl Date {
    /// Reads ISO 8601 text with one to six (or more) fraction digits and `Z` or an offset. A date without a zone is
    /// read as UTC, since the machine's zone is not known here (Python takes it for local time).
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
            return Some(Self(stamp.as_microsecond()));
        }
        // Without a zone; or in the last hours of the year 9999, which Python has and a timestamp has not.
        let civil: DateTime = text.strip_suffix('Z').unwrap_or(text).parse().ok()?;
        i64::try_from(civil.duration_since(EPOCH).as_micros()).ok().map(Self)
    }
}

impl fmt::Display for Date {
    /// `2026-11-22T01:37:19.115383Z`; without a fraction when the microseconds are 0, as Python writes it. What is out of
    /// Python's range (the years 1 to 9999) is written as 1970.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = EPOCH.checked_add(SignedDuration::from_micros(self.0)).ok().filter(|civil| civil.year() > 0);
        let civil = civil.unwrap_or(EPOCH);
        if civil.subsec_nanosecond() == 0 { write!(f, "{civil:.0}Z") } else { write!(f, "{civil:.6}Z") }
    }
}
impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("not an ISO 8601 date: `{text}`")))
    }
}

/// What a core is told of time: both clocks, read at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time.
    pub instant: Instant,
    /// Wall-clock date.
    pub date: Date,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_writes_them() {
        assert_eq!(Date::parse("2026-11-22T01:37:19.115383Z").unwrap().to_string(), "2026-11-22T01:37:19.115383Z");
        assert_eq!(Date::parse("2026-11-22T01:37:19Z").unwrap().to_string(), "2026-11-22T01:37:19Z");
        assert_eq!(Date::parse("2026-11-22T01:37:19.5+01:00").unwrap().to_string(), "2026-11-22T00:37:19.500000Z");
        assert_eq!(Date::parse("2026-11-22T01:37:19.1").unwrap().to_string(), "2026-11-22T01:37:19.100000Z");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-22", "\u{0}"] {
            assert_eq!(Date::parse(text).filter(|_| text != "2026-11-22"), None, "{text}");
        }
    }

    #[test]
    fn a_date_out_of_range_is_still_shown() {
        assert!(!Date(i64::MAX).to_string().is_empty());
    }
}
