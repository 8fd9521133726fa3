//! Finalising a day: from here on its documents never change.

use clicktally_database::billing::finalise_day;
use clicktally_database::{Database, Day};
use clicktally_proto::clock::Clock;
use serde::Serialize;

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
pub async fn finalize(database: &Database, day: Day, clock: &dyn Clock) -> Result<FinalizedDay, BillingError> {
    let documents = finalise_day(database, day, clock.now_ms()).await?.ok_or(BillingError::NotRun(day))?;
    tracing::info!(%day, documents, "finalised");
    Ok(FinalizedDay { day, documents })
}
