//! Stage one: partial counts since the last checkpoint.
//!
//! One [`Aggregator`] per (campaign, ad) of the shard. It is an actor in the sense of the design (owns its state, addressed by a
//! key, activated by its first message, passivated when idle) hosted in the shard actor, which is its mailbox: a click costs a
//! table lookup instead of a message.

use clicktally_proto::counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::Minute;
use clicktally_proto::ids::{AdId, CampaignId};
use hashbrown::HashMap;

use super::shard_state::PENDING_CLICKS_MAX;

/// An aggregator not touched for so many checkpoints is passivated; it holds nothing by then.
pub const IDLE_CHECKPOINTS_MAX: u32 = 60;

type Address = (CampaignId, AdId);

/// One salt's share of one ad: what it has counted since the last checkpoint.
#[derive(Debug, Default)]
struct Aggregator {
    /// The minute it counts now; clicks come nearly in order. Nothing is in it where both counts are 0.
    minute: Minute,
    clicks: u32,
    invalid_clicks: u32,
    /// The checkpoint that took something from it last.
    touched_at: u32,
    /// The minutes it counted before; seldom any.
    #[allow(clippy::box_collection)] // Eight bytes instead of 24, in a table that may have millions of these.
    others: Option<Box<Vec<(Minute, Counts)>>>,
}

/// Counts of one aggregator between two checkpoints fit 32 bits: a shard stops reading long before.
const _: () = assert!(PENDING_CLICKS_MAX < u32::MAX as u64);

impl Aggregator {
    fn is_untouched(&self) -> bool {
        self.clicks == 0 && self.invalid_clicks == 0
    }

    /// Returns true when this opened a cell.
    #[inline]
    fn count(&mut self, minute: Minute, is_invalid: bool) -> bool {
        let opens = self.is_untouched() || (self.minute != minute && self.change_minute(minute));
        self.minute = minute;
        self.clicks += u32::from(!is_invalid);
        self.invalid_clicks += u32::from(is_invalid);
        opens
    }

    /// Puts the present counts aside and takes up those of `minute`; true where there are none.
    #[cold]
    fn change_minute(&mut self, minute: Minute) -> bool {
        let held = (self.minute, self.counts());
        let others = self.others.get_or_insert_default();
        let known = others.iter().position(|(other, _)| *other == minute).map(|at| others.swap_remove(at).1);
        others.push(held);
        let counts = known.unwrap_or_default();
        // Below PENDING_CLICKS_MAX.
        self.clicks = counts.clicks as u32;
        self.invalid_clicks = counts.invalid_clicks as u32;
        known.is_none()
    }

    fn counts(&self) -> Counts {
        Counts { clicks: self.clicks.into(), invalid_clicks: self.invalid_clicks.into() }
    }

    fn take(&mut self, mut emit: impl FnMut(Minute, Counts)) {
        emit(self.minute, self.counts());
        self.clicks = 0;
        self.invalid_clicks = 0;
        // Emptied, not given back: a replay comes through several minutes between any two checkpoints.
        for (minute, counts) in self.others.iter_mut().flat_map(|others| others.drain(..)) {
            emit(minute, counts);
        }
    }
}

/// The aggregators of one shard.
#[derive(Debug, Default)]
pub struct Aggregators {
    hosted: HashMap<Address, Aggregator, foldhash::fast::RandomState>,
    /// Whoever has something to say at the next checkpoint.
    touched: Vec<Address>,
    cells: usize,
    checkpoints: u32,
}

impl Aggregators {
    #[inline]
    pub fn count(&mut self, key: CellKey, is_invalid: bool) {
        let address = (key.campaign_id, key.ad_id);
        let aggregator = self.hosted.entry(address).or_default();
        if aggregator.is_untouched() {
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
        self.checkpoints = self.checkpoints.wrapping_add(1);
        let mut deltas = Vec::with_capacity(self.cells);
        for (campaign_id, ad_id) in self.touched.drain(..) {
            let Some(aggregator) = self.hosted.get_mut(&(campaign_id, ad_id)) else { continue };
            aggregator.touched_at = self.checkpoints;
            aggregator.take(|minute, counts| {
                deltas.push(CellDelta { key: CellKey { minute, campaign_id, ad_id }, counts });
            });
        }
        assert_eq!(deltas.len(), self.cells);
        self.cells = 0;
        if self.checkpoints.is_multiple_of(IDLE_CHECKPOINTS_MAX) {
            let now = self.checkpoints;
            self.hosted.retain(|_, aggregator| now.wrapping_sub(aggregator.touched_at) < IDLE_CHECKPOINTS_MAX);
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
