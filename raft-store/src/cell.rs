//! What replicated state holds of one (campaign, ad) of one minute.
//!
//! There may be tens of millions of these, in each replica, and merging into them is most of what a replica does: what few cells have
//! stands behind a pointer, and counts have 32 bits here and their high halves there. Each value has one form, so that cells that
//! hold the same are equal.

use clicktally_proto::counts::{CostSum, Counts};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Micros;
use clicktally_proto::user_sketch::UserSketch;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WideCell", into = "WideCell")]
pub struct Cell {
    clicks_low: u32,
    invalid_clicks_low: u32,
    spend_micros: Micros,
    changed_at: u64,
    /// `None` where all of it would be empty.
    rare: Option<Box<Rare>>,
}

/// With 16 bytes of key one and a half cache lines hold two.
const _: () = assert!(size_of::<Cell>() == 32);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    clicks_high: u32,
    invalid_clicks_high: u32,
    costs: CostSum,
    users: UserSketch,
}

/// What few cells have, of those that have none of it.
static NOTHING: Rare = Rare {
    clicks_high: 0,
    invalid_clicks_high: 0,
    costs: CostSum { sum_micros: 0, count: 0 },
    users: UserSketch::EMPTY,
};

impl Cell {
    pub(crate) fn new() -> Cell {
        Cell { clicks_low: 0, invalid_clicks_low: 0, spend_micros: 0, changed_at: 0, rare: None }
    }

    #[inline]
    fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    /// Distinct valid on-time clicks.
    pub fn clicks(&self) -> u64 {
        u64::from(self.rare().clicks_high) << 32 | u64::from(self.clicks_low)
    }

    /// Distinct on-time clicks that the validity rules exclude.
    pub fn invalid_clicks(&self) -> u64 {
        u64::from(self.rare().invalid_clicks_high) << 32 | u64::from(self.invalid_clicks_low)
    }

    pub fn costs(&self) -> CostSum {
        self.rare().costs
    }

    pub fn users(&self) -> &UserSketch {
        &self.rare().users
    }

    pub fn spend_micros(&self) -> Micros {
        self.spend_micros
    }

    /// Log index of the entry that changed it last.
    pub fn changed_at(&self) -> u64 {
        self.changed_at
    }

    pub fn counts(&self) -> Counts {
        Counts {
            clicks: self.clicks(),
            invalid_clicks: self.invalid_clicks(),
            costs: self.costs(),
            users: self.users().clone(),
        }
    }

    /// Adds clicks of the entry at `index`, by the law of [`Counts::merge`]. What they add to the users' sketch, in bytes beside the
    /// cell.
    #[inline]
    pub(crate) fn merge(
        &mut self,
        index: u64,
        clicks: u64,
        (invalid_clicks, costs, users): (u64, CostSum, Option<&UserSketch>),
        spend_micros: Micros,
    ) -> usize {
        if is_broken(Mutant::MergeReplaces) {
            self.clicks_low = 0;
        }
        self.changed_at = index;
        self.spend_micros = self.spend_micros.saturating_add(spend_micros);
        let fits = |low: u32, more: u64| u32::try_from(more).ok().and_then(|more| low.checked_add(more));
        match (fits(self.clicks_low, clicks), fits(self.invalid_clicks_low, invalid_clicks)) {
            (Some(clicks), Some(invalid_clicks)) => {
                (self.clicks_low, self.invalid_clicks_low) = (clicks, invalid_clicks);
            }
            _ => self.add_wide(clicks, invalid_clicks),
        }
        if costs.count == 0 && users.is_none() {
            return 0;
        }
        let rare = self.rare.get_or_insert_default();
        rare.costs.merge(costs);
        let Some(users) = users else { return 0 };
        let bytes_before = rare.users.heap_bytes();
        rare.users.merge(users);
        // A sketch only grows.
        rare.users.heap_bytes() - bytes_before
    }

    #[cold]
    fn add_wide(&mut self, clicks: u64, invalid_clicks: u64) {
        let clicks = self.clicks().saturating_add(clicks);
        let invalid_clicks = self.invalid_clicks().saturating_add(invalid_clicks);
        let (clicks_high, invalid_clicks_high) = ((clicks >> 32) as u32, (invalid_clicks >> 32) as u32);
        (self.clicks_low, self.invalid_clicks_low) = (clicks as u32, invalid_clicks as u32);
        let rare = self.rare.get_or_insert_default();
        (rare.clicks_high, rare.invalid_clicks_high) = (clicks_high, invalid_clicks_high);
    }
}

/// What a snapshot holds of a cell.
#[derive(Serialize, Deserialize)]
struct WideCell {
    counts: Counts,
    spend_micros: Micros,
    changed_at: u64,
}

impl From<Cell> for WideCell {
    fn from(cell: Cell) -> WideCell {
        WideCell { counts: cell.counts(), spend_micros: cell.spend_micros, changed_at: cell.changed_at }
    }
}

impl From<WideCell> for Cell {
    fn from(WideCell { counts, spend_micros, changed_at }: WideCell) -> Cell {
        let mut cell = Cell::new();
        let users = Some(&counts.users).filter(|users| !users.is_empty());
        cell.merge(changed_at, counts.clicks, (counts.invalid_clicks, counts.costs, users), spend_micros);
        cell
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::user_mark::UserMark;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Around the limit of 32 bits, and of 64.
        fn clicks()(clicks in prop_oneof![
            Just(0_u64), 0..5_u64, u64::from(u32::MAX) - 2..u64::from(u32::MAX) + 3, Just(1 << 33), Just(u64::MAX - 1)
        ]) -> u64 { clicks }
    }

    prop_compose! {
        fn counts()(
            clicks in clicks(), invalid_clicks in clicks(), count in 0_u64..3, sum_micros in 1_i64..1_000,
            users in proptest::collection::vec(0_u16..300, 0..12),
        ) -> Counts {
            let sum_micros = if count == 0 { 0 } else { sum_micros };
            let mut counts = Counts { clicks, invalid_clicks, costs: CostSum { sum_micros, count }, ..Counts::default() };
            users.iter().filter_map(|user| UserMark::of(&user.to_le_bytes())).for_each(|mark| counts.users.insert(mark));
            counts
        }
    }

    proptest! {
        #[test]
        fn a_cell_counts_as_the_merge_law_says(deltas in proptest::collection::vec(counts(), 0..8)) {
            let (mut cell, mut expected, mut sketch_bytes) = (Cell::new(), Counts::default(), 0);
            for (index, delta) in (1..).zip(&deltas) {
                let users = Some(&delta.users).filter(|users| !users.is_empty());
                sketch_bytes += cell.merge(index, delta.clicks, (delta.invalid_clicks, delta.costs, users), 3);
                expected.merge(delta);
            }
            prop_assert_eq!(cell.counts(), expected.clone());
            prop_assert_eq!(sketch_bytes, expected.users.heap_bytes());
            prop_assert_eq!(cell.spend_micros(), 3 * deltas.len() as i64);
            prop_assert_eq!(cell.changed_at(), deltas.len() as u64);
            let is_plain = [expected.clicks, expected.invalid_clicks].iter().all(|clicks| *clicks <= u32::MAX.into())
                && expected.costs.count == 0 && expected.users.is_empty();
            prop_assert_eq!(cell.rare.is_none(), is_plain, "one form for each value");
            prop_assert_eq!(&Cell::from(WideCell::from(cell.clone())), &cell);
        }
    }
}
