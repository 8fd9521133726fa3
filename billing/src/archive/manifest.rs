//! The manifest: which file holds which offsets of which shard. The one place that writes or reads `billing.archive_manifest`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use clicktally_proto::identity::shard_key::ShardId;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, PgPool, Row};

use crate::day::Day;
use crate::error::{BillingError, bigint, unsigned};

/// Told to waiters, with the same name as a channel, each time a file is committed.
pub(super) const ARCHIVED_CHANNEL: &str = "clicktally_archived";

/// A row of the manifest, as the batch needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    pub file: String,
    pub shard: ShardId,
    pub offset_from: u64,
    /// Exclusive.
    pub offset_to: u64,
    pub rows: u64,
    pub sha256: String,
}

/// A file that is in the store and asks to be in the manifest.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: String,
    pub(super) shard: ShardId,
    pub(super) offset_from: u64,
    pub(super) offset_to: u64,
    pub(super) rows: u64,
    pub(super) malformed_rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) hour: DateTime<Utc>,
    pub(super) event_times_ms: Option<(u64, u64)>,
    pub(super) days: Vec<Day>,
}

/// Commits one file. `session` must be the connection that holds the archiver's lock: when it is gone, so is the lock, and
/// this fails. The table itself refuses what does not continue the shard.
pub(super) async fn commit(session: &mut PgConnection, new: &NewFile) -> Result<(), BillingError> {
    // Beyond what bigint holds, a bound that still says "as late as can be" keeps the file in every search it belongs to.
    let bound = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let days: Vec<NaiveDate> = new.days.iter().map(|day| day.date()).collect();
    let mut transaction = session.begin().await?;
    sqlx::query(
        "INSERT INTO billing.archive_manifest (file, shard, offset_from, offset_to, rows, malformed_rows, bytes, sha256, hour,
            min_event_time_ms, max_event_time_ms, event_days)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&new.file)
    .bind(i32::from(new.shard.0))
    .bind(bigint(new.offset_from, "log offset")?)
    .bind(bigint(new.offset_to, "log offset")?)
    .bind(bigint(new.rows, "rows")?)
    .bind(bigint(new.malformed_rows, "rows")?)
    .bind(bigint(new.bytes, "bytes")?)
    .bind(&new.sha256)
    .bind(new.hour)
    .bind(new.event_times_ms.map(|(earliest, _)| bound(earliest)))
    .bind(new.event_times_ms.map(|(_, latest)| bound(latest)))
    .bind(days)
    .execute(&mut *transaction)
    .await
    .map_err(|e| match e {
        sqlx::Error::Database(refusal) => {
            BillingError::ManifestRefused { file: new.file.clone(), detail: refusal.message().to_owned() }
        }
        other => BillingError::Database(other),
    })?;
    sqlx::query("SELECT pg_notify($1, '')").bind(ARCHIVED_CHANNEL).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// For each shard the archive knows, the offset it is complete up to (exclusive).
pub async fn archived_offsets(pool: &PgPool) -> Result<BTreeMap<ShardId, u64>, BillingError> {
    let mut session = pool.acquire().await?;
    archived_offsets_of(&mut session).await
}

pub(super) async fn archived_offsets_of(session: &mut PgConnection) -> Result<BTreeMap<ShardId, u64>, BillingError> {
    sqlx::query("SELECT shard, max(offset_to) AS offset_to FROM billing.archive_manifest GROUP BY shard")
        .fetch_all(session)
        .await?
        .iter()
        .map(|row| Ok((shard_of(row.try_get("shard")?)?, unsigned(row.try_get("offset_to")?, "log offset")?)))
        .collect()
}

/// The days of event time (UTC) on which the archive holds clicks, in order.
pub async fn archived_days(pool: &PgPool) -> Result<Vec<Day>, BillingError> {
    let days: Vec<NaiveDate> =
        sqlx::query_scalar("SELECT DISTINCT unnest(event_days) AS day FROM billing.archive_manifest ORDER BY day")
            .fetch_all(pool)
            .await?;
    Ok(days.into_iter().map(Day::from).collect())
}

/// The files that can hold a click of the day or a copy of one: those with event times within `margin_ms` of it, and those
/// of its hours of arrival that hold no click at all (so that malformed records are seen). Ordered by shard and offset.
pub async fn files_for_day(pool: &PgPool, day: Day, margin_ms: u64) -> Result<Vec<ManifestFile>, BillingError> {
    let from = day.start_ms().saturating_sub(margin_ms);
    let to = day.end_ms().saturating_add(margin_ms);
    sqlx::query(
        "SELECT file, shard, offset_from, offset_to, rows, sha256 FROM billing.archive_manifest
         WHERE (max_event_time_ms >= $1 AND min_event_time_ms < $2)
            OR (max_event_time_ms IS NULL AND hour >= $3 AND hour < $3 + interval '1 day')
         ORDER BY shard, offset_from",
    )
    .bind(bigint(from, "time")?)
    .bind(bigint(to, "time")?)
    .bind(day.start())
    .fetch_all(pool)
    .await?
    .iter()
    .map(file_of)
    .collect()
}

/// The files the newest run of a day was computed from, ordered by shard and offset.
///
/// # Errors
/// `NotRun` when there is none.
pub(crate) async fn files_of_newest_run(pool: &PgPool, day: Day) -> Result<Vec<ManifestFile>, BillingError> {
    let files: Vec<String> =
        sqlx::query_scalar("SELECT files FROM billing.batch_run WHERE day = $1 ORDER BY revision DESC LIMIT 1")
            .bind(day.date())
            .fetch_optional(pool)
            .await?
            .ok_or(BillingError::NotRun(day))?;
    sqlx::query(
        "SELECT file, shard, offset_from, offset_to, rows, sha256 FROM billing.archive_manifest
         WHERE file = ANY ($1) ORDER BY shard, offset_from",
    )
    .bind(files)
    .fetch_all(pool)
    .await?
    .iter()
    .map(file_of)
    .collect()
}

fn file_of(row: &PgRow) -> Result<ManifestFile, BillingError> {
    Ok(ManifestFile {
        file: row.try_get("file")?,
        shard: shard_of(row.try_get("shard")?)?,
        offset_from: unsigned(row.try_get("offset_from")?, "log offset")?,
        offset_to: unsigned(row.try_get("offset_to")?, "log offset")?,
        rows: unsigned(row.try_get("rows")?, "rows")?,
        sha256: row.try_get("sha256")?,
    })
}

fn shard_of(column: i32) -> Result<ShardId, BillingError> {
    u16::try_from(column).map(ShardId).map_err(|_| BillingError::Overflow("shard"))
}
