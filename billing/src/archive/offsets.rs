//! How far the log reaches, and waiting until the archive has come as far.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_kafka::KafkaConnection;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use sqlx::PgPool;
use sqlx::postgres::PgListener;

use super::fetcher;
use super::manifest::{ARCHIVED_CHANNEL, archived_offsets};
use crate::error::BillingError;

/// Asks whoever archives to write out what it holds, now.
pub(super) const FLUSH_CHANNEL: &str = "clicktally_archive_flush";

const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The offset after the newest record of each shard, asked of the broker now.
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

/// Asks the archiver, wherever it runs, to write out what it holds, and returns once the manifest covers `ends` (exclusive).
///
/// # Errors
/// `ArchiveBehind` when that takes longer than `deadline`.
pub async fn wait_until_archived(
    pool: &PgPool,
    ends: &BTreeMap<ShardId, u64>,
    deadline: Duration,
) -> Result<(), BillingError> {
    // 1. Listen, 2. look, 3. ask: a file committed at any moment from here is seen or announced.
    let mut announcements = PgListener::connect_with(pool).await?;
    announcements.listen(ARCHIVED_CHANNEL).await?;
    let waiting = async {
        loop {
            if missing(pool, ends).await? == 0 {
                return Ok(());
            }
            // Asked again now and then: an archiver that starts later has not heard the first request.
            sqlx::query("SELECT pg_notify($1, '')").bind(FLUSH_CHANNEL).execute(pool).await?;
            let mut announced = tokio::time::timeout(ASK_AGAIN_AFTER, announcements.recv()).await;
            while announced.is_ok() && missing(pool, ends).await? > 0 {
                announced.map_or(Ok(()), |outcome| outcome.map(drop))?;
                announced = tokio::time::timeout(ASK_AGAIN_AFTER, announcements.recv()).await;
            }
        }
    };
    match tokio::time::timeout(deadline, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BillingError::ArchiveBehind {
            waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            missing: missing(pool, ends).await?,
        }),
    }
}

async fn missing(pool: &PgPool, ends: &BTreeMap<ShardId, u64>) -> Result<usize, BillingError> {
    let archived = archived_offsets(pool).await?;
    Ok(ends.iter().filter(|(shard, end)| archived.get(shard).copied().unwrap_or(0) < **end).count())
}
