//! What PostgreSQL holds, read with plain SQL.
//!
//! This is the one file outside `clicktally-database` with SQL on our schemas. It shares no code with the system on
//! purpose: a mistake in a query of the system must not hide itself from the checks.

use std::collections::BTreeMap;

use anyhow::Context;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{FromRow, Row};

use crate::oracle::Counts;

const CONNECTIONS_MAX: u32 = 4;

#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
}

/// One row of `reports.ad_minute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct AdMinute {
    pub minute: i64,
    pub ad_id: i64,
    pub campaign_id: i64,
    pub clicks: i64,
    pub invalid_clicks: i64,
    pub revision: i64,
    pub state: String,
    pub unique_users: Option<i64>,
    pub cost_sum_micros: i64,
    pub cost_count: i64,
}

/// What the batch made of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Billed {
    pub clicks: u64,
    pub unbilled_clicks: u64,
    pub amount_micros: i64,
}

impl Database {
    /// Connects on first use.
    pub fn new(url: &str) -> anyhow::Result<Database> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).connect_lazy(url)?;
        Ok(Database { pool })
    }

    pub async fn ad_minutes(&self) -> anyhow::Result<Vec<AdMinute>> {
        let rows = sqlx::query_as(
            "SELECT (extract(epoch FROM minute) / 60)::bigint AS minute, ad_id, campaign_id, clicks, invalid_clicks, revision, state, \
                    unique_users, cost_sum_micros, cost_count \
             FROM reports.ad_minute ORDER BY 1, 2, 3",
        );
        rows.fetch_all(&self.pool).await.context("cannot read reports.ad_minute")
    }

    /// The stream's counts, summed over campaigns; rows without a valid click are left out, as in a recount.
    pub async fn stream_counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::new();
        for row in self.ad_minutes().await? {
            if row.clicks > 0 {
                let key = (u64::try_from(row.ad_id)?, u64::try_from(row.minute)?);
                *counts.entry(key).or_default() += u64::try_from(row.clicks)?;
            }
        }
        Ok(counts)
    }

    /// Sum of clicks, and how many rows are not final yet.
    pub async fn stream_progress(&self) -> anyhow::Result<(u64, u64)> {
        let row = self
            .one("SELECT coalesce(sum(clicks), 0)::bigint, count(*) FILTER (WHERE state <> 'final') FROM reports.ad_minute")
            .await?;
        Ok((number(&row, 0)?, number(&row, 1)?))
    }

    pub async fn late_valid(&self) -> anyhow::Result<u64> {
        number(&self.one("SELECT count(*) FROM reports.late_click WHERE valid").await?, 0)
    }

    /// Exclusive end of what is archived, by shard.
    pub async fn archived_to(&self) -> anyhow::Result<BTreeMap<u16, u64>> {
        let rows = sqlx::query("SELECT shard, max(offset_to) FROM billing.archive_manifest GROUP BY shard")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((u16::try_from(row.try_get::<i32, _>(0)?)?, u64::try_from(row.try_get::<i64, _>(1)?)?)))
            .collect()
    }

    /// Clicks in the archive, and malformed records beside them.
    pub async fn archived_rows(&self) -> anyhow::Result<(u64, u64)> {
        let row = self
            .one(
                "SELECT coalesce(sum(rows - malformed_rows), 0)::bigint, coalesce(sum(malformed_rows), 0)::bigint \
                 FROM billing.archive_manifest",
            )
            .await?;
        Ok((number(&row, 0)?, number(&row, 1)?))
    }

    /// Files whose range does not continue the one before it in its shard.
    pub async fn archive_breaks(&self) -> anyhow::Result<u64> {
        let row = self
            .one(
                "SELECT count(*) FROM (SELECT offset_from, lag(offset_to, 1, 0::bigint) OVER (PARTITION BY shard ORDER BY offset_from) \
                 AS before FROM billing.archive_manifest) files WHERE offset_from <> before",
            )
            .await?;
        number(&row, 0)
    }

    /// Days (UTC) on which the archive has clicks, as YYYY-MM-DD, in order.
    pub async fn archived_days(&self) -> anyhow::Result<Vec<String>> {
        let rows =
            sqlx::query("SELECT DISTINCT unnest(event_days)::text AS day FROM billing.archive_manifest ORDER BY 1")
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// How many groups have reported how far their terms are complete.
    pub async fn groups_exported(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM catalog.terms_export").fetch_one(&self.pool).await?)
    }

    /// The prices of a campaign in the order in which they came into force.
    pub async fn prices(&self, campaign: i64) -> anyhow::Result<Vec<i64>> {
        let sql = "SELECT cost_per_click_micros FROM catalog.campaign_terms WHERE campaign_id = $1 ORDER BY revision";
        Ok(sqlx::query_scalar(sql).bind(campaign).fetch_all(&self.pool).await?)
    }

    pub async fn billed(&self) -> anyhow::Result<Billed> {
        let row = self
            .one(
                "SELECT coalesce(sum(clicks), 0)::bigint, coalesce(sum(unbilled_clicks), 0)::bigint, \
                 coalesce(sum(amount_micros), 0)::bigint FROM billing.invoice_line",
            )
            .await?;
        Ok(Billed { clicks: number(&row, 0)?, unbilled_clicks: number(&row, 1)?, amount_micros: row.try_get(2)? })
    }

    /// Transactions of the ledger that do not sum to zero in some currency.
    pub async fn ledger_imbalances(&self) -> anyhow::Result<u64> {
        let row = self
            .one(
                "SELECT count(*) FROM (SELECT 1 FROM billing.ledger_entry GROUP BY transaction_id, currency \
                 HAVING sum(amount_micros) <> 0) unbalanced",
            )
            .await?;
        number(&row, 0)
    }

    /// Differences between batch and stream by cause.
    pub async fn reconciliation(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let rows = sqlx::query(
            "SELECT cause, sum(abs(clicks))::bigint FROM billing.reconciliation WHERE scope = 'ad_minute' GROUP BY cause",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Campaign-days whose amounts the reconciliation cannot explain, and how many it compared.
    pub async fn unexplained_amounts(&self) -> anyhow::Result<(u64, u64)> {
        let row = self
            .one("SELECT count(*) FILTER (WHERE unexplained_micros > 0), count(*) FROM billing.reconciled_amount")
            .await?;
        Ok((number(&row, 0)?, number(&row, 1)?))
    }

    /// Copies every row of `reports.ad_minute` to two days earlier, where only PostgreSQL knows it.
    pub async fn copy_rows_two_days_back(&self) -> anyhow::Result<()> {
        let copied = sqlx::query(
            "INSERT INTO reports.ad_minute SELECT minute - interval '48 hours', ad_id, campaign_id, clicks, invalid_clicks, \
             spend_micros, revision, state, unique_users, user_sketch, cost_sum_micros, cost_count FROM reports.ad_minute",
        );
        copied.execute(&self.pool).await?;
        Ok(())
    }

    /// Makes the rows of a minute those of a version that kept no users.
    pub async fn forget_users(&self, minute: u64) -> anyhow::Result<()> {
        sqlx::query(
            "UPDATE reports.ad_minute SET unique_users = NULL, user_sketch = NULL \
             WHERE minute = to_timestamp($1::bigint * 60)",
        )
        .bind(i64::try_from(minute)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn one(&self, sql: &'static str) -> anyhow::Result<sqlx::postgres::PgRow> {
        sqlx::query(sql).fetch_one(&self.pool).await.with_context(|| format!("PostgreSQL did not answer: {sql}"))
    }
}

fn number(row: &sqlx::postgres::PgRow, column: usize) -> anyhow::Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?)?)
}
