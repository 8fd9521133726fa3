//! The event time that a shard has certainly reached.

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};

/// The watermark is the largest event time seen minus the out-of-orderness bound, and never decreases.
///
/// A click that is dated ahead of its arrival counts as seen at its arrival. Otherwise one device with a fast clock
/// would close minutes that other clicks still arrive for, and every one of them would be a correction or late.
///
/// A shard *proven* empty (read up to the log's end) may follow the log's clock minus the bound. Without a proof the
/// watermark does not move: a timer alone never moves it.
#[derive(Debug, Clone, Copy)]
pub struct WatermarkTracker {
    out_of_orderness_ms: u64,
    watermark_ms: UnixMillis,
}

impl WatermarkTracker {
    /// `committed_ms`: the watermark in replicated state, from which a new owner continues.
    pub fn new(out_of_orderness_ms: u64, committed_ms: UnixMillis) -> WatermarkTracker {
        WatermarkTracker { out_of_orderness_ms, watermark_ms: committed_ms }
    }

    /// `arrival_ms` is when the click's record arrived in the log.
    #[inline]
    pub fn observe(&mut self, event_time_ms: UnixMillis, arrival_ms: UnixMillis) {
        let is_trusted = is_broken(Mutant::AheadMovesWatermark);
        self.reach(if is_trusted { event_time_ms } else { event_time_ms.min(arrival_ms) });
    }

    #[inline]
    fn reach(&mut self, time_ms: UnixMillis) {
        self.watermark_ms = self.watermark_ms.max(time_ms.saturating_sub(self.out_of_orderness_ms));
    }

    /// `proven_at_ms`: time of the log, taken *before* the log was asked for its end.
    pub fn prove_empty(&mut self, proven_at_ms: UnixMillis) {
        self.reach(proven_at_ms);
    }

    #[inline]
    pub fn get(&self) -> UnixMillis {
        self.watermark_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_watermark_never_goes_back_and_trails_by_the_bound(
            committed in 0_u64..100_000,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..100_000, 0_u64..100_000), 0..50)
        ) {
            let mut tracker = WatermarkTracker::new(5_000, committed);
            let mut newest = 0;
            for (is_click, time_ms, arrival_ms) in steps {
                let before = tracker.get();
                if is_click { tracker.observe(time_ms, arrival_ms) } else { tracker.prove_empty(time_ms) }
                newest = newest.max(if is_click { time_ms.min(arrival_ms) } else { time_ms });
                prop_assert!(tracker.get() >= before);
                prop_assert_eq!(tracker.get(), committed.max(newest.saturating_sub(5_000)));
            }
        }
    }
}
