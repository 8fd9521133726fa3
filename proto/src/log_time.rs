//! The log's own time, as a node knows it without its wall clock.
//!
//! The log stamps each record with the time of its arrival. A claim such as "everything that arrived before T is
//! counted" therefore compares with the log's clock. A node whose wall clock is an hour ahead would claim an hour too
//! much. So a node asks the log for its time (with a record of its own, which the log stamps) and lets its monotonic
//! clock go on from there.
//!
//! This assumes that the brokers' clocks agree to within the out-of-orderness bound, and that they do not go back by
//! more than that. `docs/decisions/026-time-of-the-log.md` says what happens where they do.

use std::time::Duration;

use crate::event_time::UnixMillis;

/// An older answer counts no longer: too much may have happened to either clock since.
pub const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);

/// One answer of the log, and when it was asked for and received, in monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTime {
    stamped_ms: UnixMillis,
    asked_at: Duration,
    answered_at: Duration,
}

impl LogTime {
    /// The log stamped a record `stamped_ms` at some moment between the two.
    pub fn new(stamped_ms: UnixMillis, asked_at: Duration, answered_at: Duration) -> LogTime {
        assert!(asked_at <= answered_at, "an answer follows its question");
        LogTime { stamped_ms, asked_at, answered_at }
    }

    /// A time that the log's clock has certainly reached at `now`. `None` if the answer is too old.
    pub fn reached(&self, now: Duration) -> Option<UnixMillis> {
        let age = now.saturating_sub(self.answered_at);
        (age <= ANSWER_AGE_MAX).then(|| self.stamped_ms.saturating_add(millis(age)))
    }

    /// How far a wall clock that shows `wall_ms` at `now` is certainly off the log's. The time that the answer took is
    /// no difference. Positive: the wall clock is ahead.
    pub fn difference_ms(&self, now: Duration, wall_ms: UnixMillis) -> i64 {
        let least = self.stamped_ms.saturating_add(millis(now.saturating_sub(self.answered_at)));
        let most = self.stamped_ms.saturating_add(millis(now.saturating_sub(self.asked_at)));
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        if wall_ms > most { signed(wall_ms - most) } else { -signed(least.saturating_sub(wall_ms)) }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    proptest! {
        /// The log's clock shows `offset + monotonic`. Whenever the answer was stamped and however long it travelled,
        /// the time claimed is one that the log has reached, and no clock that agrees is called different.
        #[test]
        fn the_time_claimed_is_never_ahead_of_the_log(
            offset in 0_u64..10_000_000, asked in 0_u64..1_000_000, there in 0_u64..5_000, back in 0_u64..5_000,
            later in 0_u64..70_000, wrong in -100_000_i64..100_000
        ) {
            let answered = asked + there + back;
            let known = LogTime::new(offset + asked + there, ms(asked), ms(answered));
            let now = answered + later;
            match known.reached(ms(now)) {
                Some(reached) => {
                    prop_assert!(reached <= offset + now);
                    prop_assert_eq!(offset + now - reached, back);
                }
                None => prop_assert!(ms(later) > ANSWER_AGE_MAX),
            }
            prop_assert_eq!(known.difference_ms(ms(now), offset + now), 0);
            let wall = (offset + now).saturating_add_signed(wrong);
            let difference = known.difference_ms(ms(now), wall);
            let real = i64::try_from(wall).unwrap() - i64::try_from(offset + now).unwrap();
            prop_assert!(difference.abs() <= real.abs() && difference.signum() * real.signum() >= 0);
            prop_assert!((real - difference).unsigned_abs() <= there + back);
        }
    }
}
