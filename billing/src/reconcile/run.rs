//! One reconciliation of one day.

use std::collections::HashMap;

use clicktally_database::billing::{BatchAmounts, NewAmounts, Reconciliation, Verdict, files_of_newest_run};
use clicktally_database::catalog::{Terms, all_terms};
use clicktally_database::reports::late_records;
use clicktally_database::{Database, DatabaseError, Day};
use clicktally_proto::money::Micros;

use super::amounts::{CampaignAmounts, compare};
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
    let amounts = compare_amounts(&mut reconciliation, database, options).await?;
    let totals = reconciliation.day_totals().await?;
    let summary = ReconciliationSummary::new(day, totals, &differences, &amounts)?;
    let verdict = Verdict {
        totals,
        unexplained: summary.unexplained,
        unexplained_amounts: summary.unexplained_amounts,
        pages: summary.pages(),
    };
    reconciliation.replace(&differences, &amounts, &verdict).await?;
    report(&summary);
    Ok(summary)
}

/// The amounts of every campaign with clicks on the day, unless its currency changed.
async fn compare_amounts(
    reconciliation: &mut Reconciliation<'_>,
    database: &Database,
    options: &BatchOptions,
) -> Result<Vec<NewAmounts>, BillingError> {
    let mut terms: HashMap<i64, Vec<Terms>> = HashMap::new();
    for revision in all_terms(database).await? {
        terms.entry(revision.campaign_id).or_default().push(revision);
    }
    let batch = reconciliation.batch_amounts().await?;
    let clicks = reconciliation.priced_clicks().await?;
    let mut amounts = Vec::new();
    for clicks in clicks.chunk_by(|a, b| a.campaign_id == b.campaign_id) {
        let Some(campaign_id) = clicks.first().map(|row| row.campaign_id) else { continue };
        let terms = terms.get(&campaign_id).map_or(&[][..], Vec::as_slice);
        let BatchAmounts { cost_micros, billed_micros } = batch.get(&campaign_id).copied().unwrap_or_default();
        let compared = compare(campaign_id, terms, clicks, cost_micros, options.max_ahead_ms)?;
        amounts.extend(compared.map(|amounts| new_amounts(&amounts, billed_micros)));
    }
    Ok(amounts)
}

fn new_amounts(compared: &CampaignAmounts, billed_micros: Micros) -> NewAmounts {
    NewAmounts {
        campaign_id: compared.campaign_id,
        currency: compared.currency,
        stream_micros: compared.stream_micros,
        batch_micros: compared.batch_micros,
        billed_micros,
        counted_micros: compared.counted_micros,
        terms_changed_micros: compared.terms_changed_micros,
        unexplained_micros: compared.unexplained_micros,
    }
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
