//! Stage one: partial counts since the last checkpoint.
//!
//! One [`Aggregator`] per (campaign, ad) of the shard. It is an actor in the sense of the design (owns its state, addressed by a
//! key, activated by its first message, passivated when idle) hosted in the shard actor, which is its mailbox: a click costs a
//! table lookup instead of a message.

use clicktally_proto::click_view::ClickView;
use clicktally_proto::counts::{CellDelta, CellKey, CostSum, Counts};
use clicktally_proto::event_time::Minute;
use clicktally_proto::ids::{AdId, CampaignId};
use clicktally_proto::user_sketch::UserSketch;
use hashbrown::HashMap;

use super::shard_state::PENDING_CLICKS_MAX;

/// An aggregator not touched for so many checkpoints is passivated; it holds nothing by then.
pub const IDLE_CHECKPOINTS_MAX: u32 = 60;

type Address = (CampaignId, AdId);

/// What an aggregator counts itself, of one minute. Nothing is in it where both counts are 0.
#[derive(Debug, Clone, Copy, Default)]
struct OpenCell {
    minute: Minute,
    clicks: u32,
    invalid_clicks: u32,
    /// Its number among the cells opened since the last checkpoint.
    number: u32,
}

/// Counts of one aggregator between two checkpoints, and numbers of cells, fit 32 bits: a shard stops reading long before.
const _: () = assert!(PENDING_CLICKS_MAX < u32::MAX as u64);

impl OpenCell {
    fn is_untouched(&self) -> bool {
        self.clicks == 0 && self.invalid_clicks == 0
    }
}

/// One salt's share of one ad: what it has counted since the last checkpoint.
#[derive(Debug, Default)]
struct Aggregator {
    /// The minute it counts now; clicks come nearly in order. Untouched, its `number` is that of the checkpoint that took something
    /// from it last.
    now: OpenCell,
    /// The minutes it counted before; seldom any.
    #[allow(clippy::box_collection)] // Eight bytes instead of 24, in a table that may have millions of these.
    others: Option<Box<Vec<OpenCell>>>,
}

/// With its address 40 bytes of the table.
const _: () = assert!(size_of::<Aggregator>() == 24);

impl Aggregator {
    /// Returns true when this opened a cell, `number`.
    #[inline]
    fn count(&mut self, minute: Minute, is_invalid: bool, number: u32) -> bool {
        let opens = self.now.is_untouched() || (self.now.minute != minute && self.change_minute(minute));
        if opens {
            self.now.minute = minute;
            self.now.number = number;
        }
        self.now.clicks += u32::from(!is_invalid);
        self.now.invalid_clicks += u32::from(is_invalid);
        opens
    }

    /// Puts the present cell aside and takes up that of `minute`; true where there is none.
    #[cold]
    fn change_minute(&mut self, minute: Minute) -> bool {
        let others = self.others.get_or_insert_default();
        let known = others.iter().position(|other| other.minute == minute).map(|at| others.swap_remove(at));
        others.push(self.now);
        self.now = known.unwrap_or_default();
        known.is_none()
    }

    fn take(&mut self, checkpoint: u32, mut emit: impl FnMut(OpenCell)) {
        emit(self.now);
        self.now = OpenCell { number: checkpoint, ..OpenCell::default() };
        // Emptied, not given back: a replay comes through several minutes between any two checkpoints.
        self.others.iter_mut().flat_map(|others| others.drain(..)).for_each(emit);
    }

    /// The checkpoint that took something from it last; of an untouched one.
    fn taken_at(&self) -> u32 {
        self.now.number
    }
}

/// What not every click has, by number of its cell: where nobody has it, nothing is held and nothing done.
#[derive(Debug)]
struct Column<T>(Vec<T>);

impl<T> Default for Column<T> {
    fn default() -> Column<T> {
        Column(Vec::new())
    }
}

impl<T: Clone + Default> Column<T> {
    #[inline]
    fn of(&mut self, number: u32) -> &mut T {
        let at = number as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, T::default());
        }
        &mut self.0[at]
    }

    fn take(&mut self, number: u32) -> T {
        self.0.get_mut(number as usize).map(std::mem::take).unwrap_or_default()
    }
}

/// The aggregators of one shard.
#[derive(Debug, Default)]
pub struct Aggregators {
    hosted: HashMap<Address, Aggregator, foldhash::fast::RandomState>,
    /// Whoever has something to say at the next checkpoint.
    touched: Vec<Address>,
    /// Cells opened since the last checkpoint, and what their aggregators do not hold.
    cells: u32,
    costs: Column<CostSum>,
    users: Column<UserSketch>,
    checkpoints: u32,
}

impl Aggregators {
    #[inline]
    pub fn count(&mut self, minute: Minute, click: &ClickView) {
        let address = (click.campaign_id, click.ad_id);
        let aggregator = self.hosted.entry(address).or_default();
        if aggregator.now.is_untouched() {
            self.touched.push(address);
        }
        self.cells += u32::from(aggregator.count(minute, click.is_invalid, self.cells));
        if click.is_invalid {
            return;
        }
        if let Some(user) = click.user {
            self.users.of(aggregator.now.number).insert(user);
        }
        if click.cost_per_click_micros > 0 {
            self.costs.of(aggregator.now.number).add(click.cost_per_click_micros);
        }
    }

    /// Cells opened since the last checkpoint.
    pub fn cells(&self) -> usize {
        self.cells as usize
    }

    pub fn hosted(&self) -> usize {
        self.hosted.len()
    }

    /// Takes the deltas, in no particular order, and passivates who has been idle.
    pub fn take_deltas(&mut self) -> Vec<CellDelta> {
        self.checkpoints = self.checkpoints.wrapping_add(1);
        let now = self.checkpoints;
        let mut deltas = Vec::with_capacity(self.cells());
        for (campaign_id, ad_id) in self.touched.drain(..) {
            let Some(aggregator) = self.hosted.get_mut(&(campaign_id, ad_id)) else { continue };
            aggregator.take(now, |cell| {
                let counts = Counts {
                    clicks: cell.clicks.into(),
                    invalid_clicks: cell.invalid_clicks.into(),
                    costs: self.costs.take(cell.number),
                    users: self.users.take(cell.number),
                };
                deltas.push(CellDelta { key: CellKey { minute: cell.minute, campaign_id, ad_id }, counts });
            });
        }
        assert_eq!(deltas.len(), self.cells());
        self.cells = 0;
        self.costs.0.clear();
        self.users.0.clear();
        if now.is_multiple_of(IDLE_CHECKPOINTS_MAX) {
            self.hosted.retain(|_, aggregator| now.wrapping_sub(aggregator.taken_at()) < IDLE_CHECKPOINTS_MAX);
        }
        deltas
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::ids::ClickId;
    use clicktally_proto::user_mark::UserMark;

    use super::*;

    fn click(ad_id: u64, is_invalid: bool) -> ClickView {
        ClickView {
            click_id: ClickId(1),
            campaign_id: 1,
            ad_id,
            event_time_ms: 0,
            is_invalid,
            user: None,
            cost_per_click_micros: 0,
        }
    }

    /// (minute, clicks, invalid clicks, costs, distinct users) of each cell of ad 7, in order.
    fn taken(aggregators: &mut Aggregators) -> Vec<(u32, u64, u64, CostSum, u64)> {
        let mut deltas = aggregators.take_deltas();
        deltas.sort_by_key(|delta| delta.key);
        assert!(deltas.iter().all(|delta| delta.key.campaign_id == 1 && delta.key.ad_id == 7));
        let row = |CellDelta { key, counts }: CellDelta| {
            (key.minute.0, counts.clicks, counts.invalid_clicks, counts.costs, counts.users.estimate())
        };
        deltas.into_iter().map(row).collect()
    }

    #[test]
    fn deltas_are_what_was_counted_since_the_last_ones() {
        let mut aggregators = Aggregators::default();
        let user = |name: &str| UserMark::of(name.as_bytes());
        aggregators.count(Minute(1), &click(7, false));
        aggregators.count(Minute(2), &click(7, true));
        aggregators.count(Minute(2), &ClickView { user: user("a"), cost_per_click_micros: 30, ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("a"), ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("b"), cost_per_click_micros: 5, ..click(7, false) });
        aggregators.count(Minute(1), &ClickView { user: user("b"), cost_per_click_micros: 6, ..click(7, false) });
        let costs = |sum_micros, count| CostSum { sum_micros, count };
        assert_eq!(taken(&mut aggregators), [(1, 4, 0, costs(11, 2), 2), (2, 1, 1, costs(30, 1), 1)]);
        assert!(aggregators.take_deltas().is_empty());
        aggregators.count(Minute(1), &click(7, false));
        assert_eq!(taken(&mut aggregators), [(1, 1, 0, costs(0, 0), 0)]);
    }

    #[test]
    fn an_idle_aggregator_is_passivated_and_a_busy_one_is_not() {
        let mut aggregators = Aggregators::default();
        aggregators.count(Minute(1), &click(7, false));
        for _ in 0..2 * IDLE_CHECKPOINTS_MAX {
            aggregators.count(Minute(1), &click(8, false));
            aggregators.take_deltas();
        }
        assert_eq!(aggregators.hosted(), 1);
    }

    #[test]
    fn clicks_without_users_and_costs_hold_nothing_for_them() {
        let mut aggregators = Aggregators::default();
        aggregators.count(Minute(1), &click(7, false));
        aggregators.count(Minute(1), &ClickView { user: UserMark::of(b"robot"), ..click(7, true) });
        assert!(aggregators.users.0.is_empty() && aggregators.costs.0.is_empty());
    }
}
