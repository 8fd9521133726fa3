//! The merge law: what is counted for one (campaign, ad, minute), and how two partial counts become one. Merging is
//! associative and commutative, and zero is its identity, so the order in which shards arrive never matters.

use serde::{Deserialize, Serialize};

use crate::counts::user_sketch::UserSketch;
use crate::event_time::Minute;
use crate::identity::ids::{AdId, CampaignId};
use crate::money::Micros;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Distinct valid on-time clicks.
    pub clicks: u64,
    /// Distinct on-time clicks that the validity rules exclude.
    pub invalid_clicks: u64,
    /// The costs that the valid clicks themselves carry.
    pub costs: CostSum,
    /// The users of the valid clicks. A click without a `user_id` adds no user.
    pub users: UserSketch,
}

impl Counts {
    pub fn merge(&mut self, other: &Counts) {
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.invalid_clicks = self.invalid_clicks.saturating_add(other.invalid_clicks);
        self.costs.merge(other.costs);
        self.users.merge(&other.users);
    }
}

/// Sum and number of `cost_per_click`, which give an average at any level of a roll-up. It is informative: invoices
/// follow the campaign's terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostSum {
    /// Never below zero.
    pub sum_micros: Micros,
    /// Clicks with a cost. The others are not in the average.
    pub count: u64,
}

impl CostSum {
    /// Ignores a cost of zero or less.
    #[inline]
    pub fn add(&mut self, cost_per_click_micros: Micros) {
        if cost_per_click_micros > 0 {
            self.merge(CostSum { sum_micros: cost_per_click_micros, count: 1 });
        }
    }

    pub fn merge(&mut self, other: CostSum) {
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
        self.count = self.count.saturating_add(other.count);
    }

    /// Rounded down. `None`: no click has a cost.
    pub fn average_micros(self) -> Option<Micros> {
        self.sum_micros.checked_div(i64::try_from(self.count).unwrap_or(i64::MAX))
    }
}

/// Ordered by minute first, so that a window's cells are adjacent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    pub minute: Minute,
    pub campaign_id: CampaignId,
    pub ad_id: AdId,
}

/// What one shard has counted of one cell since its last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellDelta {
    pub key: CellKey,
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::counts::user_mark::UserMark;

    fn merged(mut left: Counts, right: &Counts) -> Counts {
        left.merge(right);
        left
    }

    prop_compose! {
        fn counts()(
            clicks in 0..u64::MAX, invalid_clicks in 0..u64::MAX, sum_micros in 0..i64::MAX, count in 0..u64::MAX,
            users in proptest::collection::vec("[a-z]{1,2}", 0..20),
        ) -> Counts {
            let mut counts = Counts { clicks, invalid_clicks, costs: CostSum { sum_micros, count }, ..Counts::default() };
            users.iter().filter_map(|user| UserMark::of(user.as_bytes())).for_each(|mark| counts.users.insert(mark));
            counts
        }
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_has_an_identity(a in counts(), b in counts(), c in counts()) {
            prop_assert_eq!(merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b.clone(), &c)));
            prop_assert_eq!(merged(a.clone(), &b), merged(b, &a));
            prop_assert_eq!(&merged(a.clone(), &Counts::default()), &a);
        }
    }

    #[test]
    fn an_average_covers_the_clicks_with_a_cost() {
        let mut costs = CostSum::default();
        assert_eq!(costs.average_micros(), None);
        [0, 100, 201, -5].into_iter().for_each(|cost| costs.add(cost));
        assert_eq!((costs, costs.average_micros()), (CostSum { sum_micros: 301, count: 2 }, Some(150)));
        costs.merge(CostSum { sum_micros: i64::MAX, count: u64::MAX });
        assert_eq!(costs, CostSum { sum_micros: i64::MAX, count: u64::MAX });
    }
}
