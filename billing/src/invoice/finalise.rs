//! Finalising a day: from here on its documents never change, and the ledger holds them.

use clicktally_database::billing::{Finalisation, NewEntry, OverriddenChecks};
use clicktally_database::{Database, Day};
use clicktally_proto::clock::Clock;
use serde::Serialize;

use super::finalising::{Finalising, Posting};
use super::readiness::DayFacts;
use crate::error::BillingError;

/// Who finalises a day that is not ready, and why. It is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub by: String,
    pub reason: String,
}

/// What finalising did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FinalizedDay {
    pub day: Day,
    /// Documents that are final now and were drafts before; none when the day was final already.
    pub documents: u64,
    /// Checks that failed and were overridden.
    pub overridden: Vec<String>,
    /// Why the day was left as it is; only for one of several days.
    pub not_ready: Vec<String>,
}

impl FinalizedDay {
    /// A day that was left out.
    pub fn skipped(day: Day, reason: &BillingError) -> FinalizedDay {
        FinalizedDay { day, documents: 0, overridden: Vec::new(), not_ready: vec![reason.to_string()] }
    }
}

/// Makes the day's draft run and its documents final, and posts them to the ledger. Repeating it is harmless.
///
/// `lateness_ms`: for how long after its end a day's windows take clicks.
///
/// # Errors
/// `NotRun` when the day has no run at all; `NotReady` when clicks of the day may still come, or its newest run is not
/// reconciled or differs too much from the stream, unless that is overridden.
pub async fn finalize(
    database: &Database,
    day: Day,
    lateness_ms: u64,
    overriding: Option<&Override>,
    clock: &dyn Clock,
) -> Result<FinalizedDay, BillingError> {
    let mut finalisation = Finalisation::begin(database, day).await?;
    let run = finalisation.newest_run().await?.ok_or(BillingError::NotRun(day))?;
    let mut finalized = FinalizedDay { day, documents: 0, overridden: Vec::new(), not_ready: Vec::new() };
    if run.is_final {
        return Ok(finalized);
    }
    let now_ms = clock.now_ms();
    let reconciled = finalisation.reconciled_run().await?;
    let facts = DayFacts { day, lateness_ms, now_ms, run: &run, reconciled: reconciled.as_ref() };
    let finalising = Finalising::decide(&facts, finalisation.drafts().await?, overriding.is_some())?;
    for Posting { document, entries } in &finalising.postings {
        let rows: Vec<NewEntry> = entries
            .iter()
            .map(|entry| NewEntry {
                account: entry.account.as_str(),
                advertiser_id: entry.advertiser_id,
                currency: entry.currency,
                amount_micros: entry.amount_micros,
            })
            .collect();
        finalisation.post(document, &rows).await?;
    }
    finalized.overridden = finalising.overridden.iter().map(|missing| missing.name().to_owned()).collect();
    let checks = &finalized.overridden;
    let recorded = overriding.map(|o| OverriddenChecks { checks, by: &o.by, reason: &o.reason });
    finalized.documents = finalisation.commit(&run, recorded, now_ms).await?;
    if !finalized.overridden.is_empty() {
        tracing::warn!(%day, overridden = ?finalized.overridden, "finalised although it was not ready");
    }
    tracing::info!(%day, documents = finalized.documents, "finalised");
    Ok(finalized)
}
