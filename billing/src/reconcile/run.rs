//! One reconciliation of one day.

use std::collections::HashMap;

use clicktally_database::billing::{Reconciliation, Verdict, files_of_newest_run};
use clicktally_database::reports::late_records;
use clicktally_database::{Database, DatabaseError, Day};

use super::compare::{WindowKey, compare_campaigns, compare_windows};
use super::summary::{ReconciliationSummary, report};
use crate::archive::ArchiveStore;
use crate::batch::{BatchOptions, ShardQuery, by_shard};
use crate::error::{BillingError, bigint};

/// Compares the newest batch run of a day with what the stream reported of it, and replaces the day's differences.
///
/// # Errors
/// `NotRun` before the first batch run of the day.
pub async fn reconcile(
    database: &Database,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
) -> Result<ReconciliationSummary, BillingError> {
    let late = late_winners(database, store, day, options).await?;
    let mut reconciliation = Reconciliation::begin(database, day).await?;
    let mut differences = compare_windows(&mut reconciliation, &late).await?;
    let campaigns = compare_campaigns(&mut reconciliation, &differences).await?;
    differences.extend(campaigns);
    let totals = reconciliation.day_totals().await?;
    let summary = ReconciliationSummary::new(day, totals, &differences);
    let verdict = Verdict { totals, unexplained: summary.unexplained, pages: summary.pages() };
    reconciliation.replace(&differences, &verdict).await?;
    report(&summary);
    Ok(summary)
}

/// Valid clicks that the batch counts from the very record the stream declared late, by (campaign, ad, minute).
async fn late_winners(
    database: &Database,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
) -> Result<HashMap<WindowKey, i64>, BillingError> {
    let files = files_of_newest_run(database, day).await?.ok_or(BillingError::NotRun(day))?;
    let mut found = HashMap::new();
    for (shard, files) in by_shard(&files) {
        let late = late_records(database, day, shard).await?;
        if late.is_empty() {
            continue;
        }
        let query = ShardQuery::open(store, &files, day, options).await?;
        let mut clicks = 0;
        for cell in query.late_winners(&late).await? {
            clicks += cell.clicks;
            *found.entry((cell.campaign_id, cell.ad_id, cell.minute)).or_insert(0) += cell.clicks;
        }
        if clicks > bigint(late.len() as u64, "late clicks")? {
            let detail = format!("shard {} of {day} has late records that win more than one click", shard.0);
            return Err(DatabaseError::Damaged { table: "reports.late_click", detail }.into());
        }
    }
    Ok(found)
}
