//! Event time: tumbling one-minute windows, and the life of a window as a function of a watermark.
//!
//! A window is **open** until the watermark passes its end. Then it is **fired** and takes corrections for the allowed
//! lateness. Then it is **final**. The watermark is a bound of event time: below it no more on-time clicks are
//! expected.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

pub const WINDOW_MS: u64 = 60_000;

/// A tumbling window `[start, start + 60 s)` of event time, numbered in minutes since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Minute(pub u32);

impl Minute {
    pub fn of(event_time_ms: UnixMillis) -> Minute {
        Minute(u32::try_from(event_time_ms / WINDOW_MS).unwrap_or(u32::MAX))
    }

    pub fn start_ms(self) -> UnixMillis {
        u64::from(self.0) * WINDOW_MS
    }

    /// Exclusive.
    pub fn end_ms(self) -> UnixMillis {
        self.start_ms() + WINDOW_MS
    }
}

/// How long the stream waits, and for what. These rules are part of the replicated group settings, so every replica has
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTimeRules {
    /// How far behind the newest click of a shard an on-time click may be.
    pub out_of_orderness_ms: u64,
    /// How long after its end a window still takes corrections.
    pub allowed_lateness_ms: u64,
    /// How long a final window stays readable in replicated state after it became final.
    pub retain_final_ms: u64,
    /// A click further ahead of its arrival is refused at capture. If it comes by the log, the stream quarantines it
    /// and the batch does not bill it. A click that is less far ahead is counted, and moves watermarks as far as its
    /// arrival.
    pub max_ahead_ms: u64,
}

impl Default for EventTimeRules {
    fn default() -> Self {
        EventTimeRules {
            out_of_orderness_ms: 5_000,
            allowed_lateness_ms: 15 * 60_000,
            retain_final_ms: 10 * 60_000,
            max_ahead_ms: 5 * 60_000,
        }
    }
}

impl EventTimeRules {
    /// The latest event time with which a click that arrives then is counted.
    #[inline]
    pub fn newest_ms(&self, arrival_ms: UnixMillis) -> UnixMillis {
        arrival_ms.saturating_add(self.max_ahead_ms)
    }

    pub fn has_fired(&self, minute: Minute, watermark_ms: UnixMillis) -> bool {
        minute.end_ms() <= watermark_ms
    }

    /// A click of a final window is too late to count. It goes to the side output, and to the invoice.
    pub fn is_final(&self, minute: Minute, watermark_ms: UnixMillis) -> bool {
        minute.end_ms().saturating_add(self.allowed_lateness_ms) <= watermark_ms
    }

    pub fn is_evictable(&self, minute: Minute, watermark_ms: UnixMillis) -> bool {
        minute.end_ms().saturating_add(self.allowed_lateness_ms).saturating_add(self.retain_final_ms) <= watermark_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_half_open() {
        assert_eq!(Minute::of(59_999), Minute(0));
        assert_eq!(Minute::of(60_000), Minute(1));
        assert_eq!(Minute(1).end_ms(), Minute(2).start_ms());
    }

    #[test]
    fn a_window_fires_when_the_watermark_reaches_its_end_and_is_final_after_the_lateness() {
        let rules = EventTimeRules { allowed_lateness_ms: 1_000, ..EventTimeRules::default() };
        assert!(!rules.has_fired(Minute(0), 59_999));
        assert!(rules.has_fired(Minute(0), 60_000));
        assert!(!rules.is_final(Minute(0), 60_999));
        assert!(rules.is_final(Minute(0), 61_000));
    }
}
