//! Latencies, stalls, and how they are printed.

use crate::cli::Failure;
use crate::cli::output::duration;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The longest latency that is told apart, in microseconds: ten minutes.
const MICROS_MAX: u64 = 600_000_000;

/// Latencies, to three significant digits.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are constants that fit"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX).max(1));
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.0.add(&other.0).map_err(|error| Failure::new(format!("adding latencies: {error}")))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub(super) fn text(&self) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| duration(self.at(quantile)));
        format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {}", duration(self.max()))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    pub(super) fn json(&self) -> Value {
        let micros = |quantile| self.0.value_at_quantile(quantile);
        json!({
            "count": self.count(), "mean_us": self.0.mean(), "p50_us": micros(0.5), "p90_us": micros(0.9),
            "p99_us": micros(0.99), "p999_us": micros(0.999), "max_us": self.0.max(),
        })
    }
}

/// The longest time in which something waited for its acknowledgement and nothing was acknowledged.
pub(super) struct Stall {
    /// When something last was.
    last: Instant,
    /// The longest time so far.
    longest: Duration,
}

impl Stall {
    pub(super) fn new(begun: Instant) -> Self {
        Self { last: begun, longest: Duration::ZERO }
    }

    /// Something that waited since `since` was acknowledged.
    pub(super) fn progress(&mut self, since: Instant, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last.max(since)));
        self.last = now;
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_stalls_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        let near =
            |found: Duration, expected: u64| found.as_millis().abs_diff(u128::from(expected)) <= expected as u128 / 500;
        assert!(near(latencies.at(0.5), 500) && near(latencies.at(0.99), 990) && near(latencies.max(), 1000));
        let begun = Instant::now();
        let mut stall = Stall::new(begun);
        let at = |millis| begun + Duration::from_millis(millis);
        for (since, now) in [(0, 10), (0, 15), (5, 90), (500, 510)] {
            stall.progress(at(since), at(now));
        }
        assert_eq!(stall.longest(), Duration::from_millis(75), "nothing waited from 90 to 500");
    }
}
