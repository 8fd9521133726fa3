//! Stage one: partial counts since the last checkpoint.
//!
//! One [`Aggregator`] per (campaign, ad) of the shard. It is an actor in the sense of the design (owns its state, addressed by a
//! key, activated by its first message, passivated when idle) hosted in the shard actor, which is its mailbox: a click costs a
//! table lookup instead of a message.

use clicktally_proto::counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::Minute;
use clicktally_proto::ids::{AdId, CampaignId};
use hashbrown::HashMap;

/// An aggregator not touched for so many checkpoints is passivated; it holds nothing by then.
pub const IDLE_CHECKPOINTS_MAX: u64 = 60;

type Address = (CampaignId, AdId);

/// One salt's share of one ad.
#[derive(Debug, Default)]
struct Aggregator {
    /// Few: on-time clicks fall into a window or two. Empty after each checkpoint.
    partials: Vec<(Minute, Counts)>,
    touched_at: u64,
}

impl Aggregator {
    /// Returns true when this opened a cell.
    #[inline]
    fn count(&mut self, minute: Minute, is_invalid: bool) -> bool {
        let clicks = u64::from(!is_invalid);
        let invalid_clicks = u64::from(is_invalid);
        // Newest first: clicks come nearly in order.
        if let Some((_, counts)) = self.partials.iter_mut().rev().find(|(held, _)| *held == minute) {
            counts.clicks += clicks;
            counts.invalid_clicks += invalid_clicks;
            return false;
        }
        self.partials.push((minute, Counts { clicks, invalid_clicks }));
        true
    }
}

/// The aggregators of one shard.
#[derive(Debug, Default)]
pub struct Aggregators {
    hosted: HashMap<Address, Aggregator, foldhash::fast::RandomState>,
    /// Whoever has something to say at the next checkpoint.
    touched: Vec<Address>,
    cells: usize,
    checkpoints: u64,
}

impl Aggregators {
    #[inline]
    pub fn count(&mut self, key: CellKey, is_invalid: bool) {
        let address = (key.campaign_id, key.ad_id);
        let aggregator = self.hosted.entry(address).or_default();
        if aggregator.partials.is_empty() {
            self.touched.push(address);
        }
        self.cells += usize::from(aggregator.count(key.minute, is_invalid));
    }

    /// Cells opened since the last checkpoint.
    pub fn cells(&self) -> usize {
        self.cells
    }

    pub fn hosted(&self) -> usize {
        self.hosted.len()
    }

    /// Takes the deltas, in no particular order, and passivates who has been idle.
    pub fn take_deltas(&mut self) -> Vec<CellDelta> {
        self.checkpoints += 1;
        let mut deltas = Vec::with_capacity(self.cells);
        for (campaign_id, ad_id) in self.touched.drain(..) {
            let Some(aggregator) = self.hosted.get_mut(&(campaign_id, ad_id)) else { continue };
            aggregator.touched_at = self.checkpoints;
            deltas.extend(
                aggregator
                    .partials
                    .drain(..)
                    .map(|(minute, counts)| CellDelta { key: CellKey { minute, campaign_id, ad_id }, counts }),
            );
        }
        assert_eq!(deltas.len(), self.cells);
        self.cells = 0;
        if self.checkpoints.is_multiple_of(IDLE_CHECKPOINTS_MAX) {
            let now = self.checkpoints;
            self.hosted.retain(|_, aggregator| now - aggregator.touched_at < IDLE_CHECKPOINTS_MAX);
        }
        deltas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(minute: u32, ad_id: u64) -> CellKey {
        CellKey { minute: Minute(minute), campaign_id: 1, ad_id }
    }

    #[test]
    fn deltas_are_what_was_counted_since_the_last_ones() {
        let mut aggregators = Aggregators::default();
        aggregators.count(key(1, 7), false);
        aggregators.count(key(2, 7), true);
        aggregators.count(key(1, 7), false);
        let mut deltas = aggregators.take_deltas();
        deltas.sort_by_key(|delta| delta.key);
        assert_eq!(
            deltas,
            [
                CellDelta { key: key(1, 7), counts: Counts { clicks: 2, invalid_clicks: 0 } },
                CellDelta { key: key(2, 7), counts: Counts { clicks: 0, invalid_clicks: 1 } },
            ]
        );
        assert!(aggregators.take_deltas().is_empty());
    }

    #[test]
    fn an_idle_aggregator_is_passivated_and_a_busy_one_is_not() {
        let mut aggregators = Aggregators::default();
        aggregators.count(key(1, 7), false);
        for _ in 0..2 * IDLE_CHECKPOINTS_MAX {
            aggregators.count(key(1, 8), false);
            aggregators.take_deltas();
        }
        assert_eq!(aggregators.hosted(), 1);
    }
}
