//! `reports.late_click`: clicks that came after their window was final. They are not in `reports.ad_minute`, but on
//! the invoice.

use clicktally_proto::identity::shard_key::ShardId;
use sqlx::Row;

use crate::column::from_bigint;
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;

/// The record of the raw log that held a late click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateRecord {
    pub click_id: u64,
    pub log_offset: u64,
}

/// The valid late clicks of one shard whose event time is on the day.
///
/// # Errors
/// `Sql`; `OutOfRange` for a negative offset.
pub async fn late_records(database: &Database, day: Day, shard: ShardId) -> Result<Vec<LateRecord>, DatabaseError> {
    sqlx::query(
        "SELECT click_id, log_offset FROM reports.late_click
         WHERE valid AND shard = $1 AND event_time >= $2 AND event_time < $2 + interval '1 day'",
    )
    .bind(i32::from(shard.0))
    .bind(day.start())
    .fetch_all(database.pool())
    .await?
    .iter()
    .map(|row| {
        let click_id: i64 = row.try_get("click_id")?;
        Ok(LateRecord {
            // Stored as its bit pattern.
            click_id: click_id.cast_unsigned(),
            log_offset: from_bigint(row.try_get("log_offset")?, "log offset")?,
        })
    })
    .collect()
}
