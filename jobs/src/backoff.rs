//! How long a failed attempt waits before the next one; the only file that names `backoff`.
//!
//! The crate's own policy keeps state, counts from a process-local clock and adds its jitter after
//! the maximum. A run's attempts outlive the process, so here the delay is a function of the
//! attempt alone, and the maximum is a maximum.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// Each delay is twice the one before.
const MULTIPLIER: f64 = 2.0;

/// A delay is moved by up to 30 % either way, so that runs that failed together do not come back
/// together.
const JITTER: f64 = 0.3;

/// No delay is longer than a year, whatever the settings say: longer ones overflow the arithmetic.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Exponential delays with jitter.
///
/// With `initial` 10 s and `max` 15 min (each delay is drawn evenly from its range, and the range
/// ends at `max`):
///
/// | attempt that failed | middle | from | to |
/// |---|---|---|---|
/// | 1 | 10 s | 7 s | 13 s |
/// | 2 | 20 s | 14 s | 26 s |
/// | 3 | 40 s | 28 s | 52 s |
/// | 4 | 80 s | 56 s | 104 s |
/// | 5 | 160 s | 112 s | 208 s |
/// | 6 | 320 s | 224 s | 416 s |
/// | 7 | 640 s | 448 s | 832 s |
/// | 8 and later | 900 s | 630 s | 900 s |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The middle of the first delay.
    pub initial: Duration,
    /// No delay is longer.
    pub max: Duration,
}

impl RetryPolicy {
    /// The delay after attempt number `attempt` failed; 1 is the first.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let max = self.max.min(LONGEST);
        let (from, to) = self.range(attempt);
        let mut policy = ExponentialBackoff {
            current_interval: self.middle(attempt),
            initial_interval: self.initial.min(max),
            max_interval: max,
            multiplier: MULTIPLIER,
            randomization_factor: JITTER,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        policy.next_backoff().unwrap_or(max).clamp(from, to)
    }

    /// The shortest and the longest delay that `delay` can give for this attempt.
    #[must_use]
    pub fn range(&self, attempt: u32) -> (Duration, Duration) {
        let middle = self.middle(attempt);
        let max = self.max.min(LONGEST);
        (middle.mul_f64(1.0 - JITTER), middle.mul_f64(1.0 + JITTER).min(max))
    }

    fn middle(&self, attempt: u32) -> Duration {
        let max = self.max.min(LONGEST);
        let doublings = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // Beyond 2^1000 the product is infinite, and `min` makes it `max` again; nought times
        // infinity is no number, so nought is answered first.
        if self.initial.is_zero() {
            return Duration::ZERO;
        }
        let secs = (self.initial.as_secs_f64() * MULTIPLIER.powi(doublings)).min(max.as_secs_f64());
        Duration::try_from_secs_f64(secs).unwrap_or(max).min(max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: RetryPolicy = RetryPolicy { initial: Duration::from_secs(10), max: Duration::from_mins(15) };

    #[test]
    fn the_table_in_the_documentation_is_true() {
        let ranges = (1..=9).map(|attempt| {
            let (from, to) = TABLE.range(attempt);
            (from.as_millis(), to.as_millis())
        });
        let expected = [
            (7_000, 13_000),
            (14_000, 26_000),
            (28_000, 52_000),
            (56_000, 104_000),
            (112_000, 208_000),
            (224_000, 416_000),
            (448_000, 832_000),
            (630_000, 900_000),
            (630_000, 900_000),
        ];
        assert_eq!(ranges.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn delays_use_their_whole_range() {
        let (from, to) = TABLE.range(3);
        let delays: Vec<Duration> = (0..2_000).map(|_| TABLE.delay(3)).collect();
        let low = from.mul_f64(1.1);
        let high = to.mul_f64(0.95);
        assert!(delays.iter().any(|delay| *delay < low), "none near the lower end");
        assert!(delays.iter().any(|delay| *delay > high), "none near the upper end");
    }

    proptest! {
        #[test]
        fn a_delay_stays_in_its_range_and_under_the_maximum(
            initial_ms in 0_u64..=100_000_000,
            max_ms in 0_u64..=10_000_000_000,
            attempt in prop_oneof![0_u32..70, any::<u32>()],
        ) {
            let policy =
                RetryPolicy { initial: Duration::from_millis(initial_ms), max: Duration::from_millis(max_ms) };
            let (from, to) = policy.range(attempt);
            let delay = policy.delay(attempt);
            prop_assert!(from <= to);
            prop_assert!(delay >= from && delay <= to && delay <= policy.max);
        }

        #[test]
        fn the_middle_never_shrinks_with_the_attempt(initial_ms in 0_u64..100_000, attempt in 0_u32..200) {
            let policy = RetryPolicy { initial: Duration::from_millis(initial_ms), max: Duration::from_hours(1) };
            prop_assert!(policy.middle(attempt) <= policy.middle(attempt + 1));
        }

        #[test]
        fn no_settings_panic(initial in any::<u64>(), max in any::<u64>(), attempt in any::<u32>()) {
            let policy = RetryPolicy { initial: Duration::from_secs(initial), max: Duration::from_secs(max) };
            prop_assert!(policy.delay(attempt) <= policy.max);
        }
    }
}
