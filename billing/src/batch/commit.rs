//! The one transaction that replaces a day's results.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::terms::TermsTimeline;
use crate::day::Day;
use crate::error::{BillingError, bigint, unsigned};
use crate::invoice::{BilledUsage, Document, InvoiceBuilder, SettledLine, Usage, bill, entries_of, is_balanced};

/// Serialises everything that changes documents: budgets are compared over all days. "bill" in ASCII.
pub(crate) const BILLING_LOCK: i64 = 0x6269_6c6c;

/// What the run found besides cells, for its row.
#[derive(Debug, Clone)]
pub(super) struct RunRecord {
    pub(super) day: Day,
    pub(super) manifest_sha256: String,
    pub(super) files: Vec<String>,
    pub(super) rows_read: u64,
    pub(super) unique_valid_clicks: u64,
    pub(super) invalid_clicks: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
    pub(super) quarantined: u64,
    pub(super) misrouted: u64,
    pub(super) malformed: u64,
    pub(super) computed_at: DateTime<Utc>,
}

#[derive(Debug)]
pub(super) struct Committed {
    pub(super) revision: i32,
    pub(super) billed: Vec<BilledUsage>,
    pub(super) documents: Vec<Document>,
}

/// Replaces the day's drafts by what lies in the session's stage. All or nothing.
///
/// 1. Lock, so that nobody bills the same budgets meanwhile. 2. Drafts go. 3. The windows are replaced. 4. Usage is billed against
///    what other days left. 5. The difference to finalised documents becomes documents, lines and ledger entries.
pub(super) async fn replace_day(
    session: &mut PgConnection,
    run: &RunRecord,
    terms: &TermsTimeline,
) -> Result<Committed, BillingError> {
    use sqlx::Connection;
    let mut transaction = session.begin().await?;
    let t = &mut *transaction;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(BILLING_LOCK).execute(&mut *t).await?;
    let date = run.day.date();
    for statement in [
        "DELETE FROM billing.invoice WHERE day = $1 AND state = 'draft'",
        "DELETE FROM billing.batch_run WHERE day = $1 AND state = 'draft'",
        "DELETE FROM billing.batch_campaign_day WHERE day = $1",
        "DELETE FROM billing.batch_ad_minute
         WHERE minute >= $1::timestamp AT TIME ZONE 'UTC' AND minute < ($1 + 1)::timestamp AT TIME ZONE 'UTC'",
    ] {
        sqlx::query(statement).bind(date).execute(&mut *t).await?;
    }
    sqlx::query(
        "INSERT INTO billing.batch_ad_minute
            (minute, ad_id, campaign_id, clicks, invalid_clicks, duplicates, strayed_copies)
         SELECT minute, ad_id, campaign_id, sum(clicks), sum(invalid_clicks), sum(duplicates), sum(strayed_copies)
         FROM pg_temp.batch_stage GROUP BY minute, ad_id, campaign_id ORDER BY minute, ad_id, campaign_id",
    )
    .execute(&mut *t)
    .await?;

    let revision: i32 = sqlx::query_scalar(
        "SELECT coalesce(max(revision), 0) + 1 FROM billing.batch_run WHERE day = $1 AND state = 'final'",
    )
    .bind(date)
    .fetch_one(&mut *t)
    .await?;
    insert_run(t, run, revision).await?;

    let billed = bill(&staged_usage(t).await?, terms, &billed_elsewhere(t, run.day).await?)?;
    for campaign in &billed {
        insert_campaign_day(t, run.day, campaign, terms).await?;
    }
    let documents = InvoiceBuilder::new(run.day, revision, terms)
        .billed(&billed)
        .settled(&settled_lines(t, run.day).await?)
        .build()?;
    for document in &documents {
        insert_document(t, document, &run.manifest_sha256).await?;
    }
    transaction.commit().await?;
    Ok(Committed { revision, billed, documents })
}

async fn staged_usage(t: &mut PgConnection) -> Result<Vec<Usage>, BillingError> {
    sqlx::query(
        "SELECT campaign_id, terms_revision, sum(clicks)::bigint AS clicks, sum(invalid_clicks)::bigint AS invalid_clicks
         FROM pg_temp.batch_stage GROUP BY campaign_id, terms_revision
         HAVING sum(clicks) > 0 OR sum(invalid_clicks) > 0",
    )
    .fetch_all(t)
    .await?
    .iter()
    .map(|row| {
        Ok(Usage {
            campaign_id: row.try_get("campaign_id")?,
            terms_revision: row.try_get("terms_revision")?,
            clicks: unsigned(row.try_get("clicks")?, "clicks")?,
            invalid_clicks: unsigned(row.try_get("invalid_clicks")?, "clicks")?,
        })
    })
    .collect()
}

async fn billed_elsewhere(t: &mut PgConnection, day: Day) -> Result<BTreeMap<i64, i64>, BillingError> {
    sqlx::query(
        "SELECT campaign_id, sum(line.amount_micros)::bigint AS amount_micros
         FROM billing.invoice_line line JOIN billing.invoice USING (invoice_id)
         WHERE day <> $1 AND campaign_id IN (SELECT campaign_id FROM pg_temp.batch_stage)
         GROUP BY campaign_id",
    )
    .bind(day.date())
    .fetch_all(t)
    .await?
    .iter()
    .map(|row| Ok((row.try_get("campaign_id")?, row.try_get("amount_micros")?)))
    .collect()
}

/// Drafts are gone by now: what is left of the day is final.
async fn settled_lines(t: &mut PgConnection, day: Day) -> Result<Vec<SettledLine>, BillingError> {
    sqlx::query(
        "SELECT campaign_id, terms_revision, sum(clicks)::bigint AS clicks, sum(line.amount_micros)::bigint AS amount_micros
         FROM billing.invoice_line line JOIN billing.invoice USING (invoice_id)
         WHERE day = $1 GROUP BY campaign_id, terms_revision",
    )
    .bind(day.date())
    .fetch_all(t)
    .await?
    .iter()
    .map(|row| {
        Ok(SettledLine {
            campaign_id: row.try_get("campaign_id")?,
            terms_revision: row.try_get("terms_revision")?,
            clicks: row.try_get("clicks")?,
            amount_micros: row.try_get("amount_micros")?,
        })
    })
    .collect()
}

async fn insert_run(t: &mut PgConnection, run: &RunRecord, revision: i32) -> Result<(), BillingError> {
    sqlx::query(
        "INSERT INTO billing.batch_run (day, revision, state, manifest_sha256, files, rows_read, unique_valid_clicks,
            invalid_clicks, duplicates, conflicts, quarantined, misrouted, malformed, computed_at)
         VALUES ($1, $2, 'draft', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(run.day.date())
    .bind(revision)
    .bind(&run.manifest_sha256)
    .bind(&run.files)
    .bind(bigint(run.rows_read, "rows")?)
    .bind(bigint(run.unique_valid_clicks, "clicks")?)
    .bind(bigint(run.invalid_clicks, "clicks")?)
    .bind(bigint(run.duplicates, "clicks")?)
    .bind(bigint(run.conflicts, "clicks")?)
    .bind(bigint(run.quarantined, "clicks")?)
    .bind(bigint(run.misrouted, "clicks")?)
    .bind(bigint(run.malformed, "clicks")?)
    .bind(run.computed_at)
    .execute(t)
    .await?;
    Ok(())
}

async fn insert_campaign_day(
    t: &mut PgConnection,
    day: Day,
    billed: &BilledUsage,
    terms: &TermsTimeline,
) -> Result<(), BillingError> {
    let agreed = terms.get(billed.usage.campaign_id, billed.usage.terms_revision);
    sqlx::query(
        "INSERT INTO billing.batch_campaign_day (day, campaign_id, terms_revision, advertiser_id, currency, price_micros,
            clicks, invalid_clicks, billed_clicks, amount_micros, unbilled_cause)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(day.date())
    .bind(billed.usage.campaign_id)
    .bind(billed.usage.terms_revision)
    .bind(agreed.map(|terms| terms.advertiser_id))
    .bind(agreed.map(|terms| terms.currency.as_str().to_owned()))
    .bind(agreed.map(|terms| terms.cost_per_click_micros))
    .bind(bigint(billed.usage.clicks, "clicks")?)
    .bind(bigint(billed.usage.invalid_clicks, "clicks")?)
    .bind(bigint(billed.billed_clicks, "clicks")?)
    .bind(billed.amount_micros)
    .bind(billed.unbilled_cause.map(|cause| cause.as_str()))
    .execute(t)
    .await?;
    Ok(())
}

async fn insert_document(t: &mut PgConnection, document: &Document, manifest_sha256: &str) -> Result<(), BillingError> {
    sqlx::query(
        "INSERT INTO billing.invoice (invoice_id, day, revision, advertiser_id, currency, kind, state, amount_micros)
         VALUES ($1, $2, $3, $4, $5, $6, 'draft', $7)",
    )
    .bind(&document.invoice_id)
    .bind(document.day.date())
    .bind(document.revision)
    .bind(document.advertiser_id)
    .bind(document.currency.as_str())
    .bind(document.kind.as_str())
    .bind(document.amount_micros)
    .execute(&mut *t)
    .await?;
    for (number, line) in (1_i32..).zip(&document.lines) {
        sqlx::query(
            "INSERT INTO billing.invoice_line (invoice_id, line, campaign_id, campaign_name, terms_revision, clicks,
                price_micros, amount_micros, unbilled_clicks, manifest_sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&document.invoice_id)
        .bind(number)
        .bind(line.campaign_id)
        .bind(&line.campaign_name)
        .bind(line.terms_revision)
        .bind(line.clicks)
        .bind(line.price_micros)
        .bind(line.amount_micros)
        .bind(line.unbilled_clicks)
        .bind(manifest_sha256)
        .execute(&mut *t)
        .await?;
    }
    let entries = entries_of(document).ok_or(BillingError::Overflow("a ledger entry"))?;
    assert!(is_balanced(&entries), "the entries of a document sum to zero by construction");
    for (number, entry) in (1_i16..).zip(&entries) {
        sqlx::query(
            "INSERT INTO billing.ledger_entry (transaction_id, entry, account, advertiser_id, currency, amount_micros)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&document.invoice_id)
        .bind(number)
        .bind(entry.account.as_str())
        .bind(entry.advertiser_id)
        .bind(entry.currency.as_str())
        .bind(entry.amount_micros)
        .execute(&mut *t)
        .await?;
    }
    Ok(())
}
