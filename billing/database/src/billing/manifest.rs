//! `billing.archive_manifest`: which file holds which offsets of which shard. Append-only.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use clicktally_proto::identity::shard_key::ShardId;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::column::{from_bigint, to_bigint, to_shard};
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;
use crate::locks::{AdvisoryLock, LockSession};
use crate::notifications::{Channel, notify};

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

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

/// A file that is in the object store and is to be in the manifest.
#[derive(Debug)]
pub struct NewFile {
    pub file: String,
    pub shard: ShardId,
    pub offset_from: u64,
    pub offset_to: u64,
    pub rows: u64,
    pub malformed_rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub hour: DateTime<Utc>,
    pub event_times_ms: Option<(u64, u64)>,
    pub days: Vec<Day>,
}

/// Commits one file, and notifies those who wait for it. The archiver's lock session commits it: once that session is
/// gone, so is the lock, and this fails. The table itself refuses a file that does not continue its shard.
///
/// # Errors
/// `ManifestRefused` when a rule of the table fires; `Sql`; `OutOfRange`.
pub async fn add_file(session: &mut LockSession, new: &NewFile) -> Result<(), DatabaseError> {
    assert_eq!(session.lock(), AdvisoryLock::Archiver, "only the archiver's session writes the manifest");
    assert!(new.offset_from < new.offset_to, "a file covers at least one offset of its shard");
    assert!(new.malformed_rows <= new.rows, "malformed rows are some of the file's rows");
    assert_eq!(new.sha256.len(), SHA256_DIGITS, "a file is named with its whole hash");
    assert!(new.event_times_ms.is_none_or(|(earliest, latest)| earliest <= latest), "event times are a range");
    // A time beyond bigint becomes the latest possible one, so that every search which concerns the file still finds
    // it.
    let bound = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    let days: Vec<NaiveDate> = new.days.iter().map(|day| day.date()).collect();
    let mut transaction = session.connection().begin().await?;
    sqlx::query(
        "INSERT INTO billing.archive_manifest (file, shard, offset_from, offset_to, rows, malformed_rows, bytes, sha256, hour,
            min_event_time_ms, max_event_time_ms, event_days)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&new.file)
    .bind(i32::from(new.shard.0))
    .bind(to_bigint(new.offset_from, "log offset")?)
    .bind(to_bigint(new.offset_to, "log offset")?)
    .bind(to_bigint(new.rows, "rows")?)
    .bind(to_bigint(new.malformed_rows, "rows")?)
    .bind(to_bigint(new.bytes, "bytes")?)
    .bind(&new.sha256)
    .bind(new.hour)
    .bind(new.event_times_ms.map(|(earliest, _)| bound(earliest)))
    .bind(new.event_times_ms.map(|(_, latest)| bound(latest)))
    .bind(days)
    .execute(&mut *transaction)
    .await
    .map_err(|e| match e {
        sqlx::Error::Database(refusal) => {
            DatabaseError::ManifestRefused { file: new.file.clone(), detail: refusal.message().to_owned() }
        }
        other => DatabaseError::Sql(other),
    })?;
    notify(&mut transaction, Channel::Archived).await?;
    transaction.commit().await?;
    Ok(())
}

/// For each shard that the archive knows, the offset it is complete up to (exclusive).
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn archived_offsets(database: &Database) -> Result<BTreeMap<ShardId, u64>, DatabaseError> {
    let mut connection = database.pool().acquire().await.map_err(DatabaseError::from)?;
    offsets_in(&mut connection).await
}

/// The same, read by the session that is going to add files.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn archived_offsets_of(session: &mut LockSession) -> Result<BTreeMap<ShardId, u64>, DatabaseError> {
    offsets_in(session.connection()).await
}

async fn offsets_in(connection: &mut PgConnection) -> Result<BTreeMap<ShardId, u64>, DatabaseError> {
    sqlx::query("SELECT shard, max(offset_to) AS offset_to FROM billing.archive_manifest GROUP BY shard")
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| Ok((to_shard(row.try_get("shard")?)?, from_bigint(row.try_get("offset_to")?, "log offset")?)))
        .collect()
}

/// The days of event time (UTC) on which the archive holds clicks, in order.
///
/// # Errors
/// `Sql`.
pub async fn archived_days(database: &Database) -> Result<Vec<Day>, DatabaseError> {
    let days: Vec<NaiveDate> =
        sqlx::query_scalar("SELECT DISTINCT unnest(event_days) AS day FROM billing.archive_manifest ORDER BY day")
            .fetch_all(database.pool())
            .await?;
    Ok(days.into_iter().map(Day::from).collect())
}

/// The files that can hold a click of the day or a copy of one: those with event times within `margin_ms` of it, and
/// those of its hours of arrival that hold no click at all (so that malformed records are seen). Ordered by shard and
/// offset.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn files_for_day(database: &Database, day: Day, margin_ms: u64) -> Result<Vec<ManifestFile>, DatabaseError> {
    let from = day.start_ms().saturating_sub(margin_ms);
    let to = day.end_ms().saturating_add(margin_ms);
    sqlx::query(
        "SELECT file, shard, offset_from, offset_to, rows, sha256 FROM billing.archive_manifest
         WHERE (max_event_time_ms >= $1 AND min_event_time_ms < $2)
            OR (max_event_time_ms IS NULL AND hour >= $3 AND hour < $3 + interval '1 day')
         ORDER BY shard, offset_from",
    )
    .bind(to_bigint(from, "time")?)
    .bind(to_bigint(to, "time")?)
    .bind(day.start())
    .fetch_all(database.pool())
    .await?
    .iter()
    .map(file_of)
    .collect()
}

/// The files from which the newest run of a day was computed, ordered by shard and offset; `None` before its first run.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn files_of_newest_run(database: &Database, day: Day) -> Result<Option<Vec<ManifestFile>>, DatabaseError> {
    let files: Option<Vec<String>> =
        sqlx::query_scalar("SELECT files FROM billing.batch_run WHERE day = $1 ORDER BY revision DESC LIMIT 1")
            .bind(day.date())
            .fetch_optional(database.pool())
            .await?;
    let Some(files) = files else { return Ok(None) };
    let files: Result<Vec<ManifestFile>, DatabaseError> = sqlx::query(
        "SELECT file, shard, offset_from, offset_to, rows, sha256 FROM billing.archive_manifest
         WHERE file = ANY ($1) ORDER BY shard, offset_from",
    )
    .bind(files)
    .fetch_all(database.pool())
    .await?
    .iter()
    .map(file_of)
    .collect();
    files.map(Some)
}

fn file_of(row: &PgRow) -> Result<ManifestFile, DatabaseError> {
    Ok(ManifestFile {
        file: row.try_get("file")?,
        shard: to_shard(row.try_get("shard")?)?,
        offset_from: from_bigint(row.try_get("offset_from")?, "log offset")?,
        offset_to: from_bigint(row.try_get("offset_to")?, "log offset")?,
        rows: from_bigint(row.try_get("rows")?, "rows")?,
        sha256: row.try_get("sha256")?,
    })
}
