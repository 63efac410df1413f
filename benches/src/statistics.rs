//! Medians, spreads and ratios.

use hdrhistogram::Histogram;

use crate::parts::Latency;

/// The middle value; the mean of the two middle ones of an even count; `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The least and the greatest value.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().fold(None, |so_far, value| {
        let (least, most) = so_far.unwrap_or((value, value));
        Some((least.min(value), most.max(value)))
    })
}

/// The median of the ratios within each round, `None` where no round has both.
///
/// What slows the machine for a while slows both of a round; the ratio of two medians would mix rounds.
pub(crate) fn paired_ratio(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<f64> {
    median(ours.iter().zip(theirs).filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)))
}

/// Round-trip times, kept to three digits up to a minute.
pub(crate) struct RoundTrips(Histogram<u64>);

impl RoundTrips {
    /// None so far.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound"))
    }

    /// Adds one, in nanoseconds.
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// The percentiles that are reported.
    pub(crate) fn latency(&self) -> Latency {
        let us = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Latency { p50: us(0.5), p90: us(0.9), p99: us(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median([f64::NAN, 1.0]), Some(1.0));
    }

    #[test]
    fn the_spread_is_from_least_to_most() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let ours = [Some(10.0), Some(5.0), None, Some(8.0)];
        let theirs = [Some(20.0), Some(10.0), Some(1.0), Some(10.0)];
        assert_eq!(paired_ratio(&ours, &theirs), Some(0.5));
        assert_eq!(paired_ratio(&[None], &[Some(1.0)]), None);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut trips = RoundTrips::new();
        (1..=100).for_each(|us| trips.add(us * 1000));
        let latency = trips.latency();
        for (found, wanted) in [(latency.p50, 50.0), (latency.p90, 90.0), (latency.p99, 99.0)] {
            assert!((found - wanted).abs() < 0.2, "{found} for {wanted}");
        }
    }
}
