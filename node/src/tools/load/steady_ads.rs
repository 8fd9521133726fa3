//! Ads that get exactly 1,000 clicks in every minute of event time, so that a lost or doubled click is *visible*.
//!
//! The clicks of a minute are due evenly over it. If a stall leaves clicks undone when the minute ends, they follow
//! with event times at its very end. The rest of the load's last minute is completed in the same way.

pub(super) const CLICKS_PER_MINUTE: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct SteadyAds {
    ads: u64,
    minute: u64,
    /// Clicks already due in `minute`, for each ad.
    emitted: u64,
}

impl SteadyAds {
    /// The first steady minute is the next whole one.
    pub(super) fn new(ads: u64, now_ms: u64) -> SteadyAds {
        SteadyAds { ads, minute: now_ms / MINUTE_MS + 1, emitted: 0 }
    }

    /// Emits `(index of the steady ad, event time)` for every click that became due by `now_ms`.
    pub(super) fn due(&mut self, now_ms: u64, mut emit: impl FnMut(u64, u64)) {
        while now_ms / MINUTE_MS > self.minute {
            self.emit_until(CLICKS_PER_MINUTE, (self.minute + 1) * MINUTE_MS - 1, &mut emit);
            self.minute += 1;
            self.emitted = 0;
        }
        if now_ms / MINUTE_MS == self.minute {
            let into_minute = now_ms % MINUTE_MS;
            self.emit_until(into_minute * CLICKS_PER_MINUTE / MINUTE_MS, now_ms, &mut emit);
        }
    }

    /// Completes the current minute: all its remaining clicks get `now_ms` or the minute's end as their time.
    pub(super) fn finish(&mut self, now_ms: u64, mut emit: impl FnMut(u64, u64)) {
        self.due(now_ms, &mut emit);
        if self.emitted > 0 {
            self.emit_until(CLICKS_PER_MINUTE, now_ms, &mut emit);
            self.minute += 1;
            self.emitted = 0;
        }
    }

    fn emit_until(&mut self, target: u64, event_time_ms: u64, emit: &mut impl FnMut(u64, u64)) {
        for _ in self.emitted..target {
            for ad in 0..self.ads {
                emit(ad, event_time_ms);
            }
        }
        self.emitted = self.emitted.max(target);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_minute_has_exactly_a_thousand_clicks_whatever_the_ticks() {
        for step in [7, 333, 61_000, 130_000] {
            let mut counts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            let start = 1_000_000_017;
            let mut steady = SteadyAds::new(3, start);
            let mut now = start;
            while now < start + 200_000 {
                now += step;
                steady.due(now, |ad, at| *counts.entry((ad, at / MINUTE_MS)).or_default() += 1);
            }
            steady.finish(now, |ad, at| *counts.entry((ad, at / MINUTE_MS)).or_default() += 1);
            assert!(counts.len() >= 9, "{counts:?}");
            assert!(counts.values().all(|&clicks| clicks == CLICKS_PER_MINUTE), "{counts:?}");
        }
    }
}
