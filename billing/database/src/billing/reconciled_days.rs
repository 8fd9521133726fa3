//! `billing.reconciled_day`: the last reconciliation of each day, read for metrics.

use chrono::{DateTime, NaiveDate, Utc};
use clicktally_proto::event_time::UnixMillis;
use sqlx::Row;

use crate::column::from_bigint;
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconciledDay {
    pub day: Day,
    pub reconciled_at_ms: UnixMillis,
    /// By the batch: distinct and valid.
    pub batch_clicks: u64,
    pub unexplained: u64,
    pub pages: bool,
}

/// The newest days that were reconciled, newest first; at most `count`.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn newest_reconciled_days(database: &Database, count: u32) -> Result<Vec<ReconciledDay>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT day, reconciled_at, batch_clicks, unexplained, pages FROM billing.reconciled_day
         ORDER BY day DESC LIMIT $1",
    )
    .bind(i64::from(count))
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            let reconciled_at: DateTime<Utc> = row.try_get("reconciled_at")?;
            Ok(ReconciledDay {
                day: row.try_get::<NaiveDate, _>("day")?.into(),
                reconciled_at_ms: from_bigint(reconciled_at.timestamp_millis(), "reconciled_at")?,
                batch_clicks: from_bigint(row.try_get("batch_clicks")?, "clicks")?,
                unexplained: from_bigint(row.try_get("unexplained")?, "clicks")?,
                pages: row.try_get("pages")?,
            })
        })
        .collect()
}

/// Clicks of the day that differ, by scope and cause. Differences of opposite sign do not cancel.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn differing_clicks(database: &Database, day: Day) -> Result<Vec<(String, String, u64)>, DatabaseError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT scope, cause, sum(abs(clicks))::bigint FROM billing.reconciliation WHERE day = $1 GROUP BY scope, cause",
    )
    .bind(day.date())
    .fetch_all(database.pool())
    .await?;
    rows.into_iter().map(|(scope, cause, clicks)| Ok((scope, cause, from_bigint(clicks, "clicks")?))).collect()
}
