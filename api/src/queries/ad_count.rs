//! The count of one ad over some minutes, merged from several views. Pure.

use std::collections::BTreeSet;

use clicktally_proto::counts::cell_counts::CostSum;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::identity::ids::CampaignId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdCount {
    pub clicks: u64,
    pub revision: u64,
    /// `None` if a part of the count comes from a view without users: a number never describes only a part of the
    /// range.
    pub users: Option<UserSketch>,
    /// `None` if a part of the count comes from a view without costs.
    pub costs: Option<AdCosts>,
}

/// The costs that clicks named, and the campaigns whose currency they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdCosts {
    pub sum: CostSum,
    /// The campaigns with at least one such click.
    pub campaigns: BTreeSet<CampaignId>,
}

impl AdCosts {
    pub fn of_campaign(campaign_id: CampaignId, sum: CostSum) -> AdCosts {
        AdCosts { sum, campaigns: (sum.count > 0).then_some(campaign_id).into_iter().collect() }
    }

    fn merge(&mut self, other: AdCosts) {
        self.sum.merge(other.sum);
        self.campaigns.extend(other.campaigns);
    }
}

/// No clicks, with users and costs known.
impl Default for AdCount {
    fn default() -> AdCount {
        AdCount { clicks: 0, revision: 0, users: Some(UserSketch::default()), costs: Some(AdCosts::default()) }
    }
}

impl AdCount {
    pub fn merge(&mut self, other: AdCount) {
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.revision = self.revision.max(other.revision);
        self.users = both(self.users.take(), other.users, |ours, theirs| ours.merge(&theirs));
        self.costs = both(self.costs.take(), other.costs, AdCosts::merge);
    }
}

fn both<T>(ours: Option<T>, theirs: Option<T>, merge: impl FnOnce(&mut T, T)) -> Option<T> {
    let (mut ours, theirs) = ours.zip(theirs)?;
    merge(&mut ours, theirs);
    Some(ours)
}

#[cfg(test)]
mod tests {
    use clicktally_proto::counts::user_mark::UserMark;

    use super::*;

    fn count(users: &[&str], campaign_id: CampaignId, cost_micros: i64) -> AdCount {
        let mut sketch = UserSketch::default();
        users.iter().filter_map(|user| UserMark::of(user.as_bytes())).for_each(|mark| sketch.insert(mark));
        let mut sum = CostSum::default();
        sum.add(cost_micros);
        AdCount { clicks: 2, revision: 3, users: Some(sketch), costs: Some(AdCosts::of_campaign(campaign_id, sum)) }
    }

    #[test]
    fn a_user_of_two_minutes_is_one_and_costs_add_up() {
        let mut all = count(&["a", "b"], 1, 30);
        all.merge(count(&["b", "c"], 2, 0));
        all.merge(count(&["a"], 3, 12));
        let costs = all.costs.unwrap();
        assert_eq!((all.clicks, all.users.unwrap().estimate()), (6, 3));
        assert_eq!((costs.sum, costs.campaigns), (CostSum { sum_micros: 42, count: 2 }, BTreeSet::from([1, 3])));
    }

    #[test]
    fn what_one_view_does_not_know_is_not_known_of_the_whole() {
        for unknown_first in [true, false] {
            let unknown = AdCount { clicks: 5, users: None, costs: None, ..AdCount::default() };
            let (mut left, right) = (count(&["a"], 1, 30), unknown);
            if unknown_first {
                let mut swapped = right.clone();
                swapped.merge(left);
                left = swapped;
            } else {
                left.merge(right);
            }
            assert_eq!((left.clicks, left.users, left.costs), (7, None, None));
        }
    }
}
