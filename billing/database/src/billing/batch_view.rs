//! The batch's results, read for queries: they replace the stream's numbers for every day that a run saw to its end.

use std::ops::Range;

use chrono::NaiveDate;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::AdId;
use sqlx::Row;

use crate::column::{from_bigint, to_bigint, to_timestamp};
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;

/// Days from `first` to `last` (inclusive) that a batch run saw to their end. A run of a day that was still going on
/// does not cover the whole day: the stream knows more.
///
/// # Errors
/// `Sql`.
pub async fn finished_days(database: &Database, first: Day, last: Day) -> Result<Vec<Day>, DatabaseError> {
    assert!(first <= last, "a query covers at least one day");
    let days: Vec<NaiveDate> = sqlx::query_scalar(
        "SELECT DISTINCT day FROM billing.batch_run \
         WHERE day BETWEEN $1 AND $2 AND computed_at >= (day + 1)::timestamp AT TIME ZONE 'UTC'",
    )
    .bind(first.date())
    .bind(last.date())
    .fetch_all(database.pool())
    .await?;
    Ok(days.into_iter().map(Day::from).collect())
}

/// The clicks of an ad over some minutes, by the newest batch runs.
///
/// # Errors
/// `Sql`; `OutOfRange`.
pub async fn clicks_of_ad(database: &Database, ad_id: AdId, minutes: Range<Minute>) -> Result<u64, DatabaseError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(clicks), 0)::bigint FROM billing.batch_ad_minute \
         WHERE minute >= $1 AND minute < $2 AND ad_id = $3",
    )
    .bind(to_timestamp(minutes.start.start_ms())?)
    .bind(to_timestamp(minutes.end.start_ms())?)
    .bind(to_bigint(ad_id, "ad id")?)
    .fetch_one(database.pool())
    .await?;
    from_bigint(row.try_get(0)?, "clicks")
}
