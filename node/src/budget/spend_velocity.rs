//! How fast a campaign spends: from what the replica showed over the last seconds, or, before it has been watched long enough,
//! from its busiest recent minute.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use clicktally_proto::event_time::{UnixMillis, WINDOW_MS};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Micros;
use clicktally_raft_store::state::Window;

const WATCHED_MS: u64 = 10_000;
/// Shorter spans say more about checkpoints than about clicks.
const SPAN_MIN_MS: u64 = 2_000;
/// Checkpoints come about once a second and shard: this covers [`WATCHED_MS`] of sixteen shards.
const SAMPLES_MAX: usize = 256;

#[derive(Debug, Clone)]
pub struct SpendVelocity {
    /// `(complete_to_ms, spend)`, both never falling.
    samples: VecDeque<(UnixMillis, Micros)>,
    /// Micros a second; stands until the samples span enough.
    assumed_micros: Micros,
}

impl SpendVelocity {
    pub fn new(assumed_micros: Micros) -> SpendVelocity {
        SpendVelocity { samples: VecDeque::new(), assumed_micros }
    }

    pub fn observe(&mut self, complete_to_ms: UnixMillis, spend_micros: Micros) {
        match self.samples.back_mut() {
            // Spend may arrive while the slowest shard holds the time back: the newest value stands for the time.
            Some(last) if complete_to_ms <= last.0 => last.1 = last.1.max(spend_micros),
            _ => self.samples.push_back((complete_to_ms, spend_micros)),
        }
        // One sample older than the span is kept, so that the span is covered.
        let oldest = complete_to_ms.saturating_sub(WATCHED_MS);
        while self.samples.len() > SAMPLES_MAX || self.samples.get(1).is_some_and(|sample| sample.0 <= oldest) {
            self.samples.pop_front();
        }
    }

    /// Micros a second, rounded up.
    pub fn micros_per_second(&self) -> Micros {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return self.assumed_micros };
        let span_ms = last.0 - first.0;
        if span_ms < SPAN_MIN_MS {
            return self.assumed_micros;
        }
        let spent = u128::try_from(last.1.saturating_sub(first.1).max(0)).unwrap_or(0);
        Micros::try_from((spent * 1_000).div_ceil(u128::from(span_ms))).unwrap_or(Micros::MAX)
    }
}

/// Each campaign's spend in its busiest of these windows, per second. One pass for all campaigns asked.
pub fn busiest_minute(windows: &[Arc<Window>], wanted: &[CampaignId]) -> BTreeMap<CampaignId, Micros> {
    let mut busiest: BTreeMap<CampaignId, Micros> = wanted.iter().map(|campaign| (*campaign, 0)).collect();
    for window in windows {
        let mut spent: BTreeMap<CampaignId, Micros> = BTreeMap::new();
        for (campaign, micros) in window.spends().filter(|(campaign, _)| busiest.contains_key(campaign)) {
            let sum = spent.entry(campaign).or_default();
            *sum = sum.saturating_add(micros);
        }
        for (campaign, micros) in spent {
            let per_second = micros / (WINDOW_MS as Micros / 1_000) + 1;
            busiest.entry(campaign).and_modify(|most| *most = per_second.max(*most));
        }
    }
    busiest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assumption_stands_until_enough_was_watched() {
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
}
