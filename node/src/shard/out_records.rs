//! The records that a shard sends elsewhere: late clicks, records that cannot be counted, and clicks of other shards.
//!
//! A shard sends them before it proposes the checkpoint that accounts for them, so a crash in between repeats them.
//! Their readers identify a repeat by the click's id, or by shard and offset.

use clicktally_kafka::WRITTEN_RECORD_BYTES_MAX;
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::{CLICKS_PER_RECORD_MAX, Click};
use clicktally_proto::click::view::ClickView;
use clicktally_proto::click_log::{LATE_CLICKS, OutRecord, QUARANTINE, RAW_CLICKS};
use clicktally_proto::counts::window_count::{LateClick, QUARANTINED_BYTES_MAX, Quarantined};
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

/// The largest record of clicks that is sent on. Columns that share values, and compressed batches, may hold more.
const REROUTED_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(REROUTED_BYTES_MAX < WRITTEN_RECORD_BYTES_MAX, "what a shard sends elsewhere can be written");
const _: () = assert!(2 * QUARANTINED_BYTES_MAX < WRITTEN_RECORD_BYTES_MAX, "and so can what it sets aside");

/// Keeps the beginning of a long record. Its offset tells where the whole is.
pub(super) fn quarantined(shard: ShardId, offset: u64, reason: String, record: &[u8]) -> OutRecord {
    let quarantined = Quarantined::of(shard, signed(offset), reason, record);
    let mut key = shard.0.to_be_bytes().to_vec();
    key.extend_from_slice(&offset.to_be_bytes());
    OutRecord { topic: QUARANTINE, partition: None, key, value: quarantined.encode_to_vec() }
}

/// Packs clicks of one other shard into records for that shard's partition: one, unless that would be too large.
/// Returns the clicks as well that are too large themselves.
pub(super) fn rerouted(shard: ShardId, clicks: &[Click]) -> (Vec<OutRecord>, Vec<&Click>) {
    assert!(clicks.len() <= CLICKS_PER_RECORD_MAX);
    let (mut records, mut too_large) = (Vec::new(), Vec::new());
    let mut parts = vec![clicks];
    while let Some(part) = parts.pop() {
        let value = encode_record(part);
        match part {
            [] => {}
            [first, ..] if value.len() <= REROUTED_BYTES_MAX => {
                let (partition, key) = (Some(shard.partition()), first.click_id.to_be_bytes().to_vec());
                records.push(OutRecord { topic: RAW_CLICKS, partition, key, value });
            }
            [click] => too_large.push(click),
            _ => {
                let (earlier, later) = part.split_at(part.len() / 2);
                parts.extend([later, earlier]);
            }
        }
    }
    (records, too_large)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
