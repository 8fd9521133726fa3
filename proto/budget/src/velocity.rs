//! How fast a campaign spends.
//!
//! The measure is the spend that the replica showed over the last seconds. Until a campaign has been watched long
//! enough, its busiest recent minute stands in for it.

use std::collections::{BTreeMap, VecDeque};

use clicktally_proto::event_time::{UnixMillis, WINDOW_MS};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Micros;

const WATCHED_MS: u64 = 10_000;
/// A shorter span shows the rhythm of checkpoints, not the rate of clicks.
const SPAN_MIN_MS: u64 = 2_000;
/// Each shard commits a checkpoint about once a second: this covers [`WATCHED_MS`] of sixteen shards.
const SAMPLES_MAX: usize = 256;
const SECONDS_PER_WINDOW: Micros = WINDOW_MS as Micros / 1_000;
const _: () = assert!(SPAN_MIN_MS < WATCHED_MS, "a campaign that was watched long enough has a measured span");

#[derive(Debug, Clone)]
pub struct SpendVelocity {
    /// `(complete_to_ms, spend)`, ascending in time.
    samples: VecDeque<(UnixMillis, Micros)>,
    /// Micros per second, used until the samples span [`SPAN_MIN_MS`].
    assumed_micros: Micros,
}

impl SpendVelocity {
    pub fn new(assumed_micros: Micros) -> SpendVelocity {
        SpendVelocity { samples: VecDeque::new(), assumed_micros }
    }

    pub fn observe(&mut self, complete_to_ms: UnixMillis, spend_micros: Micros) {
        match self.samples.back_mut() {
            // Spend may grow while the slowest shard holds the time back: the newest value belongs to that time.
            Some(last) if complete_to_ms <= last.0 => last.1 = last.1.max(spend_micros),
            _ => self.samples.push_back((complete_to_ms, spend_micros)),
        }
        // Keep one sample older than the span, so that the samples cover the span.
        let oldest = complete_to_ms.saturating_sub(WATCHED_MS);
        while self.samples.len() > SAMPLES_MAX || self.samples.get(1).is_some_and(|sample| sample.0 <= oldest) {
            self.samples.pop_front();
        }
        assert!((1..=SAMPLES_MAX).contains(&self.samples.len()), "the newest sample is kept, and memory is bounded");
    }

    /// Micros per second, rounded up.
    pub fn micros_per_second(&self) -> Micros {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return self.assumed_micros };
        assert!(first.0 <= last.0, "samples ascend in time");
        let span_ms = last.0 - first.0;
        if span_ms < SPAN_MIN_MS {
            return self.assumed_micros;
        }
        let spent = u128::try_from(last.1.saturating_sub(first.1).max(0)).unwrap_or(0);
        Micros::try_from((spent * 1_000).div_ceil(u128::from(span_ms))).unwrap_or(Micros::MAX)
    }
}

/// Each campaign's spend in its busiest of several minutes: feed it minute by minute, in any order.
#[derive(Debug, Clone)]
pub struct BusiestMinute {
    /// Micros per second, never below the true rate; zero for a campaign that spent nothing.
    per_second: BTreeMap<CampaignId, Micros>,
}

impl BusiestMinute {
    /// Only these campaigns are looked at.
    pub fn of(campaigns: &[CampaignId]) -> BusiestMinute {
        BusiestMinute { per_second: campaigns.iter().map(|campaign| (*campaign, 0)).collect() }
    }

    /// All spends of one minute; a campaign may occur several times in it.
    pub fn observe(&mut self, spends: impl Iterator<Item = (CampaignId, Micros)>) {
        let mut spent: BTreeMap<CampaignId, Micros> = BTreeMap::new();
        for (campaign, micros) in spends.filter(|(campaign, _)| self.per_second.contains_key(campaign)) {
            let sum = spent.entry(campaign).or_default();
            *sum = sum.saturating_add(micros);
        }
        for (campaign, micros) in spent {
            let per_second = micros / SECONDS_PER_WINDOW + 1;
            self.per_second.entry(campaign).and_modify(|most| *most = per_second.max(*most));
        }
    }

    /// One entry for each campaign asked about, in order of campaign id.
    pub fn per_second(self) -> BTreeMap<CampaignId, Micros> {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assumption_holds_until_enough_was_watched() {
        let mut velocity = SpendVelocity::new(77);
        velocity.observe(10_000, 0);
        velocity.observe(11_000, 500);
        assert_eq!(velocity.micros_per_second(), 77);
        velocity.observe(12_000, 1_000);
        assert_eq!(velocity.micros_per_second(), 500);
    }

    #[test]
    fn only_the_last_seconds_count_and_memory_is_bounded() {
        let mut velocity = SpendVelocity::new(0);
        for second in 0..1_000 {
            velocity.observe(second * 1_000, if second < 900 { 0 } else { 1_000_000 });
        }
        assert_eq!(velocity.micros_per_second(), 0);
        for step in 0..10_000 {
            velocity.observe(2_000_000 + step, 2_000_000);
        }
        assert!(velocity.samples.len() <= SAMPLES_MAX);
    }

    #[test]
    fn spend_that_comes_before_its_time_is_not_lost() {
        let mut velocity = SpendVelocity::new(0);
        velocity.observe(10_000, 0);
        velocity.observe(14_000, 100);
        velocity.observe(14_000, 4_000);
        assert_eq!(velocity.micros_per_second(), 1_000);
    }

    #[test]
    fn the_busiest_minute_of_each_campaign_asked_about_stands_in() {
        let mut busiest = BusiestMinute::of(&[7, 8]);
        busiest.observe([(7, 60_000_000), (7, 60_000_000), (9, 1)].into_iter());
        busiest.observe([(7, 60_000_000)].into_iter());
        assert_eq!(busiest.per_second(), BTreeMap::from([(7, 2_000_001), (8, 0)]));
    }
}
