//! Turns what was staged into bills and documents, inside the one transaction that replaces the day.

use clicktally_database::billing::{CampaignDay, NewDocument, NewLine, NewRun, Stage};
use clicktally_database::require_count;

use super::day_bill::{DayBill, UnbilledDay};
use crate::bill::{BilledUsage, TermsTimeline};
use crate::error::BillingError;
use crate::invoice::Document;

#[derive(Debug)]
pub(super) struct Committed {
    /// The newest final one if the bill is unchanged.
    pub(super) revision: i32,
    pub(super) bill: DayBill,
}

/// Replaces the day's drafts by what was staged. All or nothing.
///
/// 1. Bill the usage against what other days left of the budgets. 2. Record each campaign's result. 3. Unless the day
///    is final with the same files and the same bill, record the run, and write the difference to finalised documents
///    as documents and lines. 4. Commit.
pub(super) async fn write_results(
    stage: &mut Stage,
    run: &NewRun,
    terms: &TermsTimeline,
) -> Result<Committed, BillingError> {
    let mut replacement = stage.replace_day(run).await?;
    let revision = replacement.revision();
    let usages = replacement.usage().await?;
    let counted: u64 = usages.iter().map(|usage| usage.clicks).sum();
    // The stage holds every valid click of the run, once.
    require_count("staged clicks", run.unique_valid_clicks, counted)?;
    let unbilled = UnbilledDay {
        day: run.day,
        revision,
        manifest_sha256: &run.manifest_sha256,
        usages,
        billed_elsewhere: replacement.billed_on_other_days().await?,
        settled: replacement.settled_lines().await?,
        settled_bill: replacement.settled_bill(),
    };
    let bill = unbilled.bill(terms)?;
    for result in &bill.billed {
        replacement.add_campaign_day(&campaign_day(result, terms)).await?;
    }
    if bill.is_unchanged {
        replacement.commit().await?;
        return Ok(Committed { revision: revision - 1, bill });
    }
    replacement.record_run(run, &bill.sha256).await?;
    for document in &bill.documents {
        replacement.add_document(&new_document(document)).await?;
    }
    replacement.commit().await?;
    Ok(Committed { revision, bill })
}

fn campaign_day(billed: &BilledUsage, terms: &TermsTimeline) -> CampaignDay {
    let agreed = terms.get(billed.usage.campaign_id, billed.usage.terms_revision);
    CampaignDay {
        usage: billed.usage,
        agreed: agreed.map(|terms| (terms.advertiser_id, terms.currency, terms.cost_per_click_micros)),
        billed_clicks: billed.billed_clicks,
        amount_micros: billed.amount_micros,
        unbilled_cause: billed.unbilled_cause.map(|cause| cause.as_str()),
    }
}

fn new_document(document: &Document) -> NewDocument<'_> {
    NewDocument {
        invoice_id: &document.invoice_id,
        day: document.day,
        revision: document.revision,
        advertiser_id: document.advertiser_id,
        currency: document.currency,
        kind: document.kind.as_str(),
        amount_micros: document.amount_micros,
        lines: document
            .lines
            .iter()
            .map(|line| NewLine {
                campaign_id: line.campaign_id,
                campaign_name: &line.campaign_name,
                terms_revision: line.terms_revision,
                clicks: line.clicks,
                price_micros: line.price_micros,
                amount_micros: line.amount_micros,
                unbilled_clicks: line.unbilled_clicks,
            })
            .collect(),
    }
}
