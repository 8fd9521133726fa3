//! The records that a shard sends elsewhere: late clicks, records that cannot be counted, and clicks of other shards.
//!
//! A shard sends them before it proposes the checkpoint that accounts for them, so a crash in between repeats them.
//! Their readers identify a repeat by the click's id, or by shard and offset.

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::{CLICKS_PER_RECORD_MAX, Click};
use clicktally_proto::click::view::ClickView;
use clicktally_proto::click_log::{LATE_CLICKS, OutRecord, QUARANTINE, RAW_CLICKS};
use clicktally_proto::counts::window_count::{LateClick, Quarantined};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::ShardId;
use prost::Message;

pub(super) fn late(shard: ShardId, offset: u64, watermark_ms: UnixMillis, click: &ClickView) -> OutRecord {
    let late = LateClick {
        click_id: click.click_id.0,
        campaign_id: click.campaign_id,
        ad_id: click.ad_id,
        event_time_ms: click.event_time_ms,
        shard: u32::from(shard.0),
        offset: signed(offset),
        watermark_ms,
        valid: !click.is_invalid,
    };
    OutRecord {
        topic: LATE_CLICKS,
        partition: None,
        key: click.click_id.0.to_be_bytes().to_vec(),
        value: late.encode_to_vec(),
    }
}

pub(super) fn quarantined(shard: ShardId, offset: u64, reason: String, record: Vec<u8>) -> OutRecord {
    let quarantined = Quarantined { shard: u32::from(shard.0), offset: signed(offset), reason, record };
    let mut key = shard.0.to_be_bytes().to_vec();
    key.extend_from_slice(&offset.to_be_bytes());
    OutRecord { topic: QUARANTINE, partition: None, key, value: quarantined.encode_to_vec() }
}

/// Packs clicks of one other shard into one record for that shard's partition.
pub(super) fn rerouted(shard: ShardId, clicks: &[Click]) -> OutRecord {
    assert!(clicks.len() <= CLICKS_PER_RECORD_MAX);
    let key = clicks.first().map_or(0, |click| click.click_id).to_be_bytes().to_vec();
    OutRecord { topic: RAW_CLICKS, partition: Some(shard.partition()), key, value: encode_record(clicks) }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
