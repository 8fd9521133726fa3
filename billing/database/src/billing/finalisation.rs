//! The one transaction that makes a day's drafts final: `billing.ledger_entry`, `billing.finalisation`, and the states
//! of `billing.invoice` and `billing.batch_run`. PostgreSQL's triggers refuse every later change.
//!
//! This module decides neither what is ready nor what is posted. The caller reads the facts, applies the rules, and
//! hands back rows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::money::{Currency, Micros};
use sqlx::{Postgres, Row, Transaction};

use crate::column::{from_bigint, to_bigint, to_currency, to_timestamp};
use crate::connection::Database;
use crate::day::Day;
use crate::error::DatabaseError;
use crate::locks::{AdvisoryLock, lock_in_transaction};

/// The newest run of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestRun {
    pub revision: i32,
    pub is_final: bool,
    pub computed_at_ms: UnixMillis,
    /// The hash of its files, clicks and bill; `None` for a run of an earlier build.
    pub bill_sha256: Option<String>,
}

/// The last reconciliation of a day, and the run that it compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconciledRun {
    pub revision: i32,
    pub bill_sha256: Option<String>,
    pub batch_clicks: u64,
    pub unexplained: u64,
    /// Campaigns whose amounts differ without a cause.
    pub unexplained_amounts: u64,
    pub pages: bool,
    /// By PostgreSQL's clock.
    pub reconciled_at_ms: UnixMillis,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftDocument {
    pub invoice_id: String,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub amount_micros: Micros,
}

/// Debits are positive, credits negative; never zero.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry {
    pub account: &'static str,
    pub advertiser_id: i64,
    pub currency: Currency,
    pub amount_micros: Micros,
}

/// The checks that an operator overrides, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverriddenChecks<'a> {
    pub checks: &'a [String],
    pub by: &'a str,
    pub reason: &'a str,
}

/// Nothing is visible, and no bill changes, until [`Finalisation::commit`]. Dropping it changes nothing.
#[derive(Debug)]
pub struct Finalisation<'a> {
    t: Transaction<'a, Postgres>,
    day: Day,
}

impl Finalisation<'_> {
    /// Locks, so that no run replaces the drafts meanwhile.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn begin(database: &Database, day: Day) -> Result<Finalisation<'static>, DatabaseError> {
        let mut t = database.pool().begin().await?;
        lock_in_transaction(&mut t, AdvisoryLock::Billing).await?;
        Ok(Finalisation { t, day })
    }

    /// `None` where the day has no run at all.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`; `Damaged` for more than one draft run.
    pub async fn newest_run(&mut self) -> Result<Option<NewestRun>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT revision, state = 'final' AS is_final, computed_at, bill_sha256::text AS bill_sha256
             FROM billing.batch_run WHERE day = $1 ORDER BY revision DESC",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?;
        let runs: Vec<NewestRun> = rows
            .iter()
            .map(|row| {
                let computed_at: DateTime<Utc> = row.try_get("computed_at")?;
                Ok(NewestRun {
                    revision: row.try_get("revision")?,
                    is_final: row.try_get("is_final")?,
                    computed_at_ms: from_bigint(computed_at.timestamp_millis(), "computed_at")?,
                    bill_sha256: row.try_get("bill_sha256")?,
                })
            })
            .collect::<Result<_, DatabaseError>>()?;
        let drafts = runs.iter().filter(|run| !run.is_final).count();
        if drafts > 1 {
            let detail = format!("{drafts} draft runs of {}", self.day);
            return Err(DatabaseError::Damaged { table: "billing.batch_run", detail });
        }
        Ok(runs.into_iter().next())
    }

    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn reconciled_run(&mut self) -> Result<Option<ReconciledRun>, DatabaseError> {
        let row = sqlx::query(
            "SELECT revision, bill_sha256::text AS bill_sha256, batch_clicks, unexplained,
                unexplained_amounts, pages, reconciled_at
             FROM billing.reconciled_day WHERE day = $1",
        )
        .bind(self.day.date())
        .fetch_optional(&mut *self.t)
        .await?;
        row.map(|row| {
            let reconciled_at: DateTime<Utc> = row.try_get("reconciled_at")?;
            Ok(ReconciledRun {
                revision: row.try_get("revision")?,
                bill_sha256: row.try_get("bill_sha256")?,
                batch_clicks: from_bigint(row.try_get("batch_clicks")?, "clicks")?,
                unexplained: from_bigint(row.try_get("unexplained")?, "clicks")?,
                unexplained_amounts: from_bigint(row.try_get("unexplained_amounts")?, "campaigns")?,
                pages: row.try_get("pages")?,
                reconciled_at_ms: from_bigint(reconciled_at.timestamp_millis(), "reconciled_at")?,
            })
        })
        .transpose()
    }

    /// # Errors
    /// `Sql`; `Currency`.
    pub async fn drafts(&mut self) -> Result<Vec<DraftDocument>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT invoice_id, advertiser_id, currency::text AS currency, amount_micros
             FROM billing.invoice WHERE day = $1 AND state = 'draft' ORDER BY invoice_id",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DraftDocument {
                    invoice_id: row.try_get("invoice_id")?,
                    advertiser_id: row.try_get("advertiser_id")?,
                    currency: to_currency(row.try_get("currency")?)?,
                    amount_micros: row.try_get("amount_micros")?,
                })
            })
            .collect()
    }

    /// Posts a document's one transaction of the ledger.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn post(&mut self, document: &DraftDocument, entries: &[NewEntry]) -> Result<(), DatabaseError> {
        let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
        for entry in entries {
            assert_ne!(entry.amount_micros, 0, "a ledger entry moves money");
            *sums.entry(entry.currency).or_default() += i128::from(entry.amount_micros);
        }
        assert!(sums.values().all(|sum| *sum == 0), "CT-7: a ledger transaction sums to zero per currency");
        assert_eq!(entries.is_empty(), document.amount_micros == 0, "a document over an amount has ledger entries");
        for (number, entry) in (1_i16..).zip(entries) {
            sqlx::query(
                "INSERT INTO billing.ledger_entry (transaction_id, entry, account, advertiser_id, currency, amount_micros)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(&document.invoice_id)
            .bind(number)
            .bind(entry.account)
            .bind(entry.advertiser_id)
            .bind(entry.currency.as_str())
            .bind(entry.amount_micros)
            .execute(&mut *self.t)
            .await?;
        }
        Ok(())
    }

    /// Records the finalisation, makes the drafts and their run final, and commits. Returns the number of documents.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn commit(
        mut self,
        run: &NewestRun,
        overridden: Option<OverriddenChecks<'_>>,
        now_ms: UnixMillis,
    ) -> Result<u64, DatabaseError> {
        assert!(!run.is_final, "a final run is not finalised again");
        let now = to_timestamp(now_ms)?;
        let documents = sqlx::query(
            "UPDATE billing.invoice SET state = 'final', finalized_at = $2 WHERE day = $1 AND state = 'draft'",
        )
        .bind(self.day.date())
        .bind(now)
        .execute(&mut *self.t)
        .await?
        .rows_affected();
        sqlx::query("UPDATE billing.batch_run SET state = 'final' WHERE day = $1 AND state = 'draft'")
            .bind(self.day.date())
            .execute(&mut *self.t)
            .await?;
        sqlx::query(
            "INSERT INTO billing.finalisation (day, revision, finalized_at, documents, overridden, overridden_by, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.day.date())
        .bind(run.revision)
        .bind(now)
        .bind(to_bigint(documents, "documents")?)
        .bind(overridden.as_ref().map_or_else(Vec::new, |o| o.checks.to_vec()))
        .bind(overridden.as_ref().map(|o| o.by))
        .bind(overridden.as_ref().map(|o| o.reason))
        .execute(&mut *self.t)
        .await?;
        self.t.commit().await?;
        Ok(documents)
    }
}
