//! Finalising a day: from here on its documents never change.

use chrono::{DateTime, Utc};
use clicktally_proto::clock::Clock;
use serde::Serialize;
use sqlx::PgPool;

use crate::batch::BILLING_LOCK;
use crate::day::Day;
use crate::error::BillingError;

/// What finalising did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FinalizedDay {
    pub day: Day,
    /// Documents that are final now and were drafts before; none when the day was final already.
    pub documents: u64,
}

/// Makes the day's draft run and its documents final. Repeating it is harmless.
///
/// # Errors
/// `NotRun` when the day has no run at all.
pub async fn finalize(pool: &PgPool, day: Day, clock: &dyn Clock) -> Result<FinalizedDay, BillingError> {
    let now = wall_time(clock)?;
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(BILLING_LOCK).execute(&mut *transaction).await?;
    let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM billing.batch_run WHERE day = $1")
        .bind(day.date())
        .fetch_one(&mut *transaction)
        .await?;
    if runs == 0 {
        return Err(BillingError::NotRun(day));
    }
    let documents =
        sqlx::query("UPDATE billing.invoice SET state = 'final', finalized_at = $2 WHERE day = $1 AND state = 'draft'")
            .bind(day.date())
            .bind(now)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
    sqlx::query("UPDATE billing.batch_run SET state = 'final' WHERE day = $1 AND state = 'draft'")
        .bind(day.date())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    tracing::info!(%day, documents, "finalised");
    Ok(FinalizedDay { day, documents })
}

pub(crate) fn wall_time(clock: &dyn Clock) -> Result<DateTime<Utc>, BillingError> {
    i64::try_from(clock.now_ms())
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .ok_or(BillingError::Overflow("the wall clock"))
}
