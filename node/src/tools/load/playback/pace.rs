//! When a row is played.
//!
//! Event times are compressed: `anchor + (time of row − time of first row) / speed`, in whole milliseconds. A row is
//! sent when the wall clock has reached its compressed time, so that it passes capture's ±5 min check.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;

/// The longest pause of a play. A longer one is a damaged time, or a log that is better cut.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub(super) struct Pace {
    speed: f64,
    anchor_ms: UnixMillis,
    /// A row may be this far behind the newest one: the stream still counts it, whatever is in flight.
    behind_max_ms: u64,
    first_ms: Option<UnixMillis>,
    /// The newest event time so far.
    newest_ms: UnixMillis,
}

/// Why a row has no place in the play.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutOfPace {
    #[error(
        "its time is {0} s of play behind an earlier row, too far to be counted for certain: sort the file by time"
    )]
    Behind(u64),
    #[error("the play would pause for {0} s before it, more than {max} s: cut the file, or raise --speed", max = PAUSE_MAX.as_secs())]
    Ahead(u64),
}

impl OutOfPace {
    pub(super) fn group(&self) -> &'static str {
        match self {
            OutOfPace::Behind(_) => "time too far behind",
            OutOfPace::Ahead(_) => "time too far ahead",
        }
    }
}

impl Pace {
    pub(super) fn new(speed: f64, anchor_ms: UnixMillis, allowed_lateness_s: u64) -> Pace {
        // A quarter of the lateness; see `plan`.
        let behind_max_ms = allowed_lateness_s.saturating_mul(250);
        Pace { speed, anchor_ms, behind_max_ms, first_ms: None, newest_ms: anchor_ms }
    }

    /// The event time of a row with this time in its log.
    pub(super) fn event_time(&mut self, time_ms: UnixMillis) -> Result<UnixMillis, OutOfPace> {
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        let event_time_ms = compressed(time_ms, first_ms, self.speed, self.anchor_ms);
        let ahead_ms = event_time_ms.saturating_sub(self.newest_ms);
        if Duration::from_millis(ahead_ms) > PAUSE_MAX {
            return Err(OutOfPace::Ahead(ahead_ms / 1_000));
        }
        let behind_ms = self.newest_ms.saturating_sub(event_time_ms);
        if behind_ms > self.behind_max_ms {
            return Err(OutOfPace::Behind(behind_ms / 1_000));
        }
        self.newest_ms = self.newest_ms.max(event_time_ms);
        Ok(event_time_ms)
    }
}

// Milliseconds stay far below 2^53, and a tiny speed saturates.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn compressed(time_ms: UnixMillis, first_ms: UnixMillis, speed: f64, anchor_ms: UnixMillis) -> UnixMillis {
    let shifted = (time_ms.cast_signed().saturating_sub(first_ms.cast_signed()) as f64 / speed).floor() as i64;
    anchor_ms.saturating_add_signed(shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_compressed_around_the_anchor() {
        assert_eq!(compressed(10_000, 4_000, 3.0, 1_000_000), 1_002_000);
        assert_eq!(compressed(4_000, 10_000, 3.0, 1_000_000), 998_000);
        assert_eq!(compressed(10_000, 4_000, f64::MIN_POSITIVE, 1_000_000), i64::MAX.cast_unsigned() + 1_000_000);
    }

    #[test]
    fn a_row_that_would_stop_the_play_or_come_too_late_is_named_and_moves_nothing() {
        let mut pace = Pace::new(60.0, 1_000_000_000, 900);
        assert_eq!(pace.event_time(50_000_000_000), Ok(1_000_000_000));
        let year_ms = 365 * 86_400_000;
        assert!(matches!(pace.event_time(50_000_000_000 + year_ms), Err(OutOfPace::Ahead(525_600))));
        assert_eq!(pace.event_time(50_000_060_000), Ok(1_000_001_000));
        assert!(matches!(pace.event_time(50_000_000_000 - year_ms), Err(OutOfPace::Behind(_))));
        assert_eq!(pace.event_time(50_000_000_000 - 6_000), Ok(999_999_900), "a little disorder is played");
    }
}
