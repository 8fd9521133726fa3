//! How far the log reaches, and waiting until the archive has come as far.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_database::Database;
use clicktally_database::billing::archived_offsets;
use clicktally_database::notifications::Channel;
use clicktally_kafka::KafkaConnection;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};

use super::fetcher;
use crate::error::BillingError;
use crate::metrics::BillingMetrics;

const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The end of what is readable in each shard, asked of the broker now.
pub async fn log_end_offsets(
    log: &KafkaConnection,
    topic: &str,
    partitioner: Partitioner,
) -> Result<BTreeMap<ShardId, u64>, BillingError> {
    let (log, topic) = (log.clone(), topic.to_owned());
    let partitions = u16::try_from(partitioner.partitions()).map_err(|_| BillingError::Overflow("partitions"))?;
    tokio::task::spawn_blocking(move || fetcher::end_offsets(&log, &topic, (0..partitions).map(ShardId)))
        .await
        .map_err(|e| BillingError::Worker(e.to_string()))?
}

/// Shows how far the archive is behind the log. It asks both, so the answer is right also while no archiver runs.
pub async fn show_lag(
    log: &KafkaConnection,
    topic: &str,
    partitioner: Partitioner,
    database: &Database,
    metrics: &BillingMetrics,
) -> Result<(), BillingError> {
    // In this order, a lag that has just been made up for still shows: the archive never leads the log.
    let archived = archived_offsets(database).await?;
    let ends = log_end_offsets(log, topic, partitioner).await?;
    let behind = |(shard, end): (&ShardId, &u64)| end.saturating_sub(archived.get(shard).copied().unwrap_or(0));
    let lag: u64 = ends.iter().map(behind).sum();
    metrics.archive_lag_offsets.set(i64::try_from(lag).unwrap_or(i64::MAX));
    Ok(())
}

/// Asks the archiver, wherever it runs, to write out what it holds, and returns once the manifest covers `ends`
/// (exclusive).
///
/// # Errors
/// `ArchiveBehind` when that takes longer than `deadline`.
pub async fn wait_until_archived(
    database: &Database,
    ends: &BTreeMap<ShardId, u64>,
    deadline: Duration,
) -> Result<(), BillingError> {
    // 1. Listen. 2. Look. 3. Ask. So a file that is committed at any moment from here is seen or announced.
    let mut announcements = database.listen(Channel::Archived).await?;
    let waiting = async {
        loop {
            if missing(database, ends).await? == 0 {
                return Ok(());
            }
            // Ask again now and then: an archiver that starts later did not hear the first request.
            database.notify(Channel::FlushArchive).await?;
            let mut announced = tokio::time::timeout(ASK_AGAIN_AFTER, announcements.next()).await;
            while announced.is_ok() && missing(database, ends).await? > 0 {
                announced.unwrap_or(Ok(()))?;
                announced = tokio::time::timeout(ASK_AGAIN_AFTER, announcements.next()).await;
            }
        }
    };
    match tokio::time::timeout(deadline, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BillingError::ArchiveBehind {
            waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            missing: missing(database, ends).await?,
        }),
    }
}

async fn missing(database: &Database, ends: &BTreeMap<ShardId, u64>) -> Result<usize, BillingError> {
    let archived = archived_offsets(database).await?;
    Ok(ends.iter().filter(|(shard, end)| archived.get(shard).copied().unwrap_or(0) < **end).count())
}
