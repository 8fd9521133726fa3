//! `billing.invoice`, `billing.invoice_line` and `billing.ledger_entry`: drafts are written and finalised here.
//! PostgreSQL's triggers refuse every change of a finalised document.

use std::collections::BTreeMap;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::money::{Currency, Micros};
use sqlx::PgConnection;

use crate::column::to_timestamp;
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;
use crate::locks::{AdvisoryLock, lock_in_transaction};

/// A draft: one row of `billing.invoice` with its lines and ledger entries.
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
    /// One transaction of the ledger; empty where no money moves.
    pub entries: Vec<NewEntry>,
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

/// Debits are positive, credits negative; never zero.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry {
    pub account: &'static str,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub amount_micros: Micros,
}

impl NewDocument<'_> {
    /// What PostgreSQL enforces too, found before anything is sent.
    fn assert_invariants(&self) {
        let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
        for entry in &self.entries {
            assert_ne!(entry.amount_micros, 0, "a ledger entry moves money");
            *sums.entry(entry.currency).or_default() += i128::from(entry.amount_micros);
        }
        assert!(sums.values().all(|sum| *sum == 0), "CT-7: a ledger transaction sums to zero per currency");
        assert_eq!(self.entries.is_empty(), self.amount_micros == 0, "a document over an amount has ledger entries");
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
    for (number, entry) in (1_i16..).zip(&document.entries) {
        sqlx::query(
            "INSERT INTO billing.ledger_entry (transaction_id, entry, account, advertiser_id, currency, amount_micros)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(document.invoice_id)
        .bind(number)
        .bind(entry.account)
        .bind(entry.advertiser_id)
        .bind(entry.currency.as_str())
        .bind(entry.amount_micros)
        .execute(&mut *t)
        .await?;
    }
    Ok(())
}

/// Makes the day's draft run and its documents final. Returns how many documents became final: none when they were
/// already. `None` when the day has no run at all.
///
/// # Errors
/// `Sql`; `OutOfRange`; `Damaged` for more than one draft run, and nothing becomes final then.
pub async fn finalise_day(database: &Database, day: Day, now_ms: UnixMillis) -> Result<Option<u64>, DatabaseError> {
    let now = to_timestamp(now_ms)?;
    let mut transaction = database.pool().begin().await?;
    let t = &mut *transaction;
    lock_in_transaction(t, AdvisoryLock::Billing).await?;
    let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM billing.batch_run WHERE day = $1")
        .bind(day.date())
        .fetch_one(&mut *t)
        .await?;
    if runs == 0 {
        return Ok(None);
    }
    let documents =
        sqlx::query("UPDATE billing.invoice SET state = 'final', finalized_at = $2 WHERE day = $1 AND state = 'draft'")
            .bind(day.date())
            .bind(now)
            .execute(&mut *t)
            .await?
            .rows_affected();
    let runs = sqlx::query("UPDATE billing.batch_run SET state = 'final' WHERE day = $1 AND state = 'draft'")
        .bind(day.date())
        .execute(&mut *t)
        .await?
        .rows_affected();
    if runs > 1 {
        let detail = format!("{runs} draft runs of {day}");
        return Err(DatabaseError::Damaged { table: "billing.batch_run", detail });
    }
    transaction.commit().await?;
    Ok(Some(documents))
}
