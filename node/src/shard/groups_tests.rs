//! The counts do not depend on the number of Raft groups.

use std::collections::BTreeMap;

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::LogRecord;
use clicktally_proto::event_time::EventTimeRules;
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};

use clicktally_state::shards::ShardEntry;

use super::shard_state::{ShardState, ShardTerms};

const NOW_MS: u64 = 1_800_000_000_000;

/// Clicks by campaign and ad.
type Counted = BTreeMap<(u64, u64), u64>;

/// Counts the clicks in a cluster with this many groups, each in the partition it belongs to.
fn count(clicks: &[Click], groups: u16) -> Counted {
    let partitioner = Partitioner::new(groups);
    let mut partitions: BTreeMap<ShardId, Vec<&Click>> = BTreeMap::new();
    for click in clicks {
        partitions.entry(partitioner.shard(click.campaign_id, click.id())).or_default().push(click);
    }
    let mut counted = Counted::new();
    for (shard, clicks) in partitions {
        let terms = ShardTerms { shard, epoch: Epoch(1), partitioner, event_time: EventTimeRules::default() };
        let mut state = ShardState::restore(terms, &ShardEntry::default(), &[]).unwrap();
        for (offset, click) in (0..).zip(clicks) {
            let value = encode_record(std::slice::from_ref(click));
            state.take(LogRecord { offset, arrival_ms: NOW_MS, value: &value });
        }
        let cut = state.cut().unwrap();
        for cell in cut.checkpoint.cells.unpack().unwrap() {
            *counted.entry((cell.key.campaign_id, cell.key.ad_id)).or_default() += cell.counts.clicks;
        }
    }
    counted
}

/// One event was once one click or two under two campaigns: with one group they met in one shard, with several they
/// did not.
#[test]
fn an_event_of_two_campaigns_is_two_clicks_in_any_number_of_groups() {
    let mut clicks = Vec::new();
    for n in 0..200 {
        let event_id = format!("event {n}");
        // Each event under two campaigns, and each of them twice.
        for campaign_id in [n % 7 + 1, n % 5 + 11].into_iter().cycle().take(4) {
            let click_id = ClickId::foreign("shop", campaign_id, &event_id).0;
            clicks.push(Click { click_id, campaign_id, ad_id: 1 + n % 3, event_time_ms: NOW_MS, ..Click::default() });
        }
    }
    let counted = count(&clicks, 1);
    assert_eq!(counted.values().sum::<u64>(), 400);
    for groups in [2, 4, 7] {
        assert_eq!(count(&clicks, groups), counted, "{groups} groups");
    }
}
