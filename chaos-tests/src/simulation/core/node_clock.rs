//! The clocks of one node: a wall clock that jumps, and a monotonic one. Both drift.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;

use super::plan::START_MS;

#[derive(Debug, Clone)]
pub(super) struct NodeClock {
    /// Parts in a million, fast or slow.
    drift_ppm: i64,
    offset_ms: i64,
}

impl NodeClock {
    pub(super) fn new(drift_ppm: i64, offset_ms: i64) -> NodeClock {
        NodeClock { drift_ppm, offset_ms }
    }

    fn drifted_ms(&self, true_ms: u64) -> i64 {
        let true_ms = i64::try_from(true_ms).unwrap_or(i64::MAX / 2);
        true_ms + true_ms * self.drift_ppm / 1_000_000
    }

    /// `true_ms`: since the start of the run.
    pub(super) fn wall_ms(&self, true_ms: u64) -> UnixMillis {
        START_MS.saturating_add_signed(self.drifted_ms(true_ms) + self.offset_ms)
    }

    pub(super) fn monotonic(&self, true_ms: u64) -> Duration {
        // Every process has its own zero; this one is old enough that nothing underflows.
        Duration::from_millis(u64::try_from(self.drifted_ms(true_ms)).unwrap_or(0) + 1_000_000)
    }

    pub(super) fn jump(&mut self, by_ms: i64) {
        self.offset_ms += by_ms;
    }
}
