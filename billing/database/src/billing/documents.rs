//! `billing.invoice` and `billing.invoice_line`: drafts are written here. A draft has no ledger entries: they are
//! posted when it becomes final (`finalisation.rs`).

use clicktally_proto::money::{Currency, Micros};
use sqlx::PgConnection;

use crate::day::Day;
use crate::error::DatabaseError;

/// A draft: one row of `billing.invoice` with its lines.
#[derive(Debug, Clone)]
pub struct NewDocument<'a> {
    pub invoice_id: &'a str,
    pub day: Day,
    pub revision: i32,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub kind: &'static str,
    pub amount_micros: Micros,
    pub lines: Vec<NewLine<'a>>,
}

/// `amount_micros = clicks × price_micros`; both negative where a memo takes back.
#[derive(Debug, Clone, Copy)]
pub struct NewLine<'a> {
    pub campaign_id: i64,
    pub campaign_name: &'a str,
    pub terms_revision: i64,
    pub clicks: i64,
    pub price_micros: Micros,
    pub amount_micros: Micros,
    /// Valid clicks of the day that the budget did not cover.
    pub unbilled_clicks: i64,
}

impl NewDocument<'_> {
    /// What PostgreSQL enforces too, found before anything is sent.
    fn assert_invariants(&self) {
        assert!(!self.lines.is_empty(), "a document has at least one line");
        let total: i128 = self.lines.iter().map(|line| i128::from(line.amount_micros)).sum();
        assert_eq!(total, i128::from(self.amount_micros), "a document's amount is the sum of its lines");
        for line in &self.lines {
            assert_eq!(
                i128::from(line.clicks) * i128::from(line.price_micros),
                i128::from(line.amount_micros),
                "a line's amount is clicks times price"
            );
            assert!(line.price_micros >= 0 && line.unbilled_clicks >= 0, "prices and unbilled clicks are not negative");
        }
    }
}

pub(super) async fn insert_document(
    t: &mut PgConnection,
    document: &NewDocument<'_>,
    manifest_sha256: &str,
) -> Result<(), DatabaseError> {
    document.assert_invariants();
    sqlx::query(
        "INSERT INTO billing.invoice (invoice_id, day, revision, advertiser_id, currency, kind, state, amount_micros)
         VALUES ($1, $2, $3, $4, $5, $6, 'draft', $7)",
    )
    .bind(document.invoice_id)
    .bind(document.day.date())
    .bind(document.revision)
    .bind(document.advertiser_id)
    .bind(document.currency.as_str())
    .bind(document.kind)
    .bind(document.amount_micros)
    .execute(&mut *t)
    .await?;
    for (number, line) in (1_i32..).zip(&document.lines) {
        sqlx::query(
            "INSERT INTO billing.invoice_line (invoice_id, line, campaign_id, campaign_name, terms_revision, clicks,
                price_micros, amount_micros, unbilled_clicks, manifest_sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(document.invoice_id)
        .bind(number)
        .bind(line.campaign_id)
        .bind(line.campaign_name)
        .bind(line.terms_revision)
        .bind(line.clicks)
        .bind(line.price_micros)
        .bind(line.amount_micros)
        .bind(line.unbilled_clicks)
        .bind(manifest_sha256)
        .execute(&mut *t)
        .await?;
    }
    Ok(())
}
