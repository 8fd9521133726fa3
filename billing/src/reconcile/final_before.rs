//! Which windows the stream will not report any more. Pure.
//!
//! Windows of one group become final in order, so a window that is absent before a final one of its group will not
//! come. Groups follow their own shards: a final window of one group says nothing about another group, which may be
//! behind.

use std::collections::BTreeMap;

use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::{GroupId, Partitioner};

#[derive(Debug)]
pub(super) struct FinalBefore {
    partitioner: Partitioner,
    newest: BTreeMap<GroupId, Minute>,
}

impl FinalBefore {
    /// From the newest final window of each campaign.
    pub(super) fn new(partitioner: Partitioner, windows: &[(CampaignId, Minute)]) -> FinalBefore {
        let mut final_before = FinalBefore { partitioner, newest: BTreeMap::new() };
        for &(campaign, minute) in windows {
            let newest = final_before.newest.entry(final_before.group(campaign)).or_insert(minute);
            *newest = (*newest).max(minute);
        }
        final_before
    }

    pub(super) fn covers(&self, campaign: CampaignId, minute: Minute) -> bool {
        self.newest.get(&self.group(campaign)).is_some_and(|newest| minute < *newest)
    }

    fn group(&self, campaign: CampaignId) -> GroupId {
        if is_broken(Mutant::FinalityOfAllGroups) { GroupId(0) } else { self.partitioner.group(campaign) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_ahead_closes_no_window_of_another() {
        let partitioner = Partitioner::new(2);
        let of_group = |group| (1..).find(|campaign| partitioner.group(*campaign) == GroupId(group)).unwrap();
        let (ahead, behind) = (of_group(0), of_group(1));
        let final_before = FinalBefore::new(partitioner, &[(ahead, Minute(30)), (behind, Minute(10))]);
        assert!(final_before.covers(ahead, Minute(20)) && !final_before.covers(behind, Minute(20)));
        assert!(final_before.covers(behind, Minute(9)) && !final_before.covers(behind, Minute(10)));
    }
}
