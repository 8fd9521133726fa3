//! Packs the clicks of a request into records, one for each partition.

use std::collections::BTreeMap;

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::{CLICKS_PER_RECORD_MAX, Click};
use clicktally_proto::click_log::{OutRecord, RAW_CLICKS};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};

use super::body_items::ITEMS_MAX;

const _: () = assert!(ITEMS_MAX <= CLICKS_PER_RECORD_MAX);

/// Keeps the order of the clicks within a partition. The key of a record is the identity of its first click.
pub fn pack(clicks: Vec<Click>, partitioner: Partitioner) -> Vec<OutRecord> {
    let mut by_shard: BTreeMap<ShardId, Vec<Click>> = BTreeMap::new();
    for click in clicks {
        by_shard.entry(partitioner.shard(click.campaign_id, click.id())).or_default().push(click);
    }
    by_shard
        .into_iter()
        .map(|(shard, clicks)| OutRecord {
            topic: RAW_CLICKS,
            partition: Some(shard.partition()),
            key: clicks[0].click_id.to_be_bytes().to_vec(),
            value: encode_record(&clicks),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click::view::decode_record_owned;
    use clicktally_proto::identity::ids::ClickId;

    use super::*;

    #[test]
    fn every_click_is_in_exactly_one_record_and_in_its_own_partition() {
        let partitioner = Partitioner::new(4);
        let clicks: Vec<Click> = (1..=500_u64)
            .map(|n| Click {
                click_id: ClickId::foreign("shop", 7, &n.to_string()).0,
                campaign_id: n % 7 + 1,
                ad_id: n,
                event_time_ms: 1,
                ..Click::default()
            })
            .collect();
        let records = pack(clicks.clone(), partitioner);
        assert!(records.len() <= 64);
        let mut found = Vec::new();
        for record in records {
            for click in decode_record_owned(&record.value).unwrap() {
                let shard = partitioner.shard(click.campaign_id, click.id());
                assert_eq!(record.partition, Some(shard.partition()));
                found.push(click.ad_id);
            }
        }
        found.sort_unstable();
        assert_eq!(found, clicks.iter().map(|click| click.ad_id).collect::<Vec<_>>());
    }
}
