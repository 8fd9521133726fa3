//! Turns what was staged into bills and documents, inside the one transaction that replaces the day.

use clicktally_database::billing::{CampaignDay, NewDocument, NewLine, NewRun, Stage};
use clicktally_database::{DatabaseError, require_count};

use super::bill_hash::bill_hash;
use crate::bill::{BilledUsage, TermsTimeline, bill};
use crate::error::BillingError;
use crate::invoice::{Document, InvoiceBuilder};

#[derive(Debug)]
pub(super) struct Committed {
    /// The newest final one if `is_unchanged`.
    pub(super) revision: i32,
    /// The day is final, and its bill is the same, computed from the same files: there is no new run.
    pub(super) is_unchanged: bool,
    pub(super) billed: Vec<BilledUsage>,
    pub(super) documents: Vec<Document>,
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
    let billed = bill(&usages, terms, &replacement.billed_on_other_days().await?)?;
    assert_eq!(billed.len(), usages.len(), "every usage is billed or has a cause");
    for result in &billed {
        replacement.add_campaign_day(&campaign_day(result, terms)).await?;
    }
    let documents = InvoiceBuilder::new(run.day, revision, terms)
        .billed(&billed)
        .settled(&replacement.settled_lines().await?)
        .build()?;
    let bill_sha256 = bill_hash(&run.manifest_sha256, &billed, terms);
    let is_unchanged = replacement.settled_bill() == Some(bill_sha256.as_str());
    if is_unchanged {
        if let Some(document) = documents.first() {
            let detail = format!(
                "final documents that differ from the bill they were made of: they need {}",
                document.invoice_id
            );
            return Err(DatabaseError::Damaged { table: "billing.invoice_line", detail }.into());
        }
        replacement.commit().await?;
        return Ok(Committed { revision: revision - 1, is_unchanged, billed, documents });
    }
    replacement.record_run(run, &bill_sha256).await?;
    for document in &documents {
        replacement.add_document(&new_document(document)).await?;
    }
    replacement.commit().await?;
    Ok(Committed { revision, is_unchanged, billed, documents })
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
