//! Measures the ceiling: the same reader, the same sixteen partitions, one thread, and every record discarded.

use std::time::Duration;

use clicktally_proto::click_log::ClickLog;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

/// The shard path's drain interval, so that both wake up equally often.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
const RECORDS_PER_DRAIN: usize = 1_000;

/// Reads `records` records from the beginning; returns their size in bytes.
pub(super) async fn consume(log: &dyn ClickLog, records: u64) -> anyhow::Result<u64> {
    let mut readers = ShardId::of_group(GroupId(0)).map(|shard| log.open(shard, 0)).collect::<Result<Vec<_>, _>>()?;
    let mut wake_up = tokio::time::interval(DRAIN_EVERY);
    let (mut seen, mut bytes) = (0, 0);
    while seen < records {
        wake_up.tick().await;
        loop {
            let mut drained = 0;
            for reader in &mut readers {
                drained += reader.drain(RECORDS_PER_DRAIN, &mut |record| bytes += record.value.len() as u64)?;
            }
            seen += drained as u64;
            if drained == 0 {
                break;
            }
        }
    }
    Ok(bytes)
}
