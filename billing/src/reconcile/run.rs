//! One reconciliation of one day.

use std::collections::BTreeMap;

use clicktally_database::billing::{Reconciliation, files_of_newest_run};
use clicktally_database::catalog::all_terms;
use clicktally_database::reports::late_records;
use clicktally_database::{Database, DatabaseError, Day};
use clicktally_proto::identity::shard_key::Partitioner;

use super::compare::{WindowKey, campaigns_that_differ};
use super::judgement::ComparedDay;
use super::summary::{ReconciliationSummary, report};
use crate::archive::ArchiveStore;
use crate::batch::{BatchOptions, ShardQuery, by_shard};
use crate::error::{BillingError, bigint};

/// Compares the newest batch run of a day with what the stream reported of it, and replaces the day's differences.
/// `partitioner` is the cluster's.
///
/// # Errors
/// `NotRun` before the first batch run of the day.
pub async fn reconcile(
    database: &Database,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
    partitioner: Partitioner,
) -> Result<ReconciliationSummary, BillingError> {
    let late = late_winners(database, store, day, options).await?;
    let mut reconciliation = Reconciliation::begin(database, day).await?;
    let windows = reconciliation.differing_windows().await?;
    let unbilled = reconciliation.unbilled_clicks().await?;
    let campaigns = campaigns_that_differ(&windows, &unbilled);
    let compared = ComparedDay {
        day,
        late,
        final_windows: reconciliation.newest_final_windows().await?,
        campaign_totals: reconciliation.campaign_totals(&campaigns).await?.into_iter().collect(),
        totals: reconciliation.day_totals().await?,
        terms: all_terms(database).await?,
        batch_amounts: reconciliation.batch_amounts().await?.into_iter().collect(),
        clicks: reconciliation.priced_clicks().await?,
        windows,
        unbilled,
    };
    let judgement = compared.judge(partitioner, options.max_ahead_ms)?;
    reconciliation.replace(&judgement.differences, &judgement.amounts, &judgement.verdict).await?;
    report(&judgement.summary);
    Ok(judgement.summary)
}

/// Valid clicks that the batch counts from the very record the stream declared late, by (campaign, ad, minute).
async fn late_winners(
    database: &Database,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
) -> Result<BTreeMap<WindowKey, i64>, BillingError> {
    let files = files_of_newest_run(database, day).await?.ok_or(BillingError::NotRun(day))?;
    let mut found = BTreeMap::new();
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
