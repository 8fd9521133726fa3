//! `billing.reconciliation`: the differences between stream and batch. One transaction reads both sides and replaces
//! the day's rows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::CampaignId;
use futures::TryStreamExt;
use sqlx::{FromRow, Postgres, Row, Transaction};

use super::amounts::CampaignAmounts;
use crate::column::{from_bigint, not_negative, to_bigint, to_minute, to_timestamp};
use crate::connection::Database;
use crate::day::Day;
use crate::error::{DatabaseError, require_count};

/// Rows written in one statement.
const ROWS_PER_INSERT: usize = 10_000;

/// A window of one ad and campaign in which stream and batch count differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferingWindow {
    pub minute: Minute,
    pub ad_id: i64,
    pub campaign_id: i64,
    pub batch_clicks: i64,
    pub batch_invalid: i64,
    pub stream_clicks: i64,
    pub stream_invalid: i64,
    /// Valid copies in this window of clicks whose first copy is elsewhere.
    pub strayed_copies: i64,
    /// The stream's row says that it will not change again. A window without a row of the stream never does.
    pub is_marked_final: bool,
}

/// The day's clicks, as each side counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayTotals {
    pub batch_clicks: u64,
    pub stream_clicks: u64,
    pub billed_clicks: u64,
}

/// What a reconciliation found of the whole day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub totals: DayTotals,
    pub unexplained: u64,
    /// Campaigns whose amounts differ without a cause.
    pub unexplained_amounts: u64,
    /// More is unexplained than the limit, of clicks or of amounts.
    pub pages: bool,
}

/// A row of `billing.reconciliation`. The scope is the whole campaign where `window` is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDifference {
    pub campaign_id: i64,
    /// The ad and the minute.
    pub window: Option<(i64, Minute)>,
    pub cause: &'static str,
    pub stream_clicks: i64,
    pub batch_clicks: i64,
    /// The batch's side minus the stream's, as far as this cause explains it.
    pub clicks: i64,
}

impl NewDifference {
    pub fn scope(&self) -> &'static str {
        if self.window.is_some() { "ad_minute" } else { "campaign" }
    }
}

/// The differences of a day by one cause, summed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct CauseTotals {
    /// `ad_minute`: counted clicks; `campaign`: billed clicks.
    pub scope: String,
    pub cause: String,
    /// How many windows or campaigns differ by this cause.
    pub rows: i64,
    pub clicks: i64,
}

/// Reads one snapshot, because the stream's writer continues meanwhile. Dropping it changes nothing.
#[derive(Debug)]
pub struct Reconciliation<'a> {
    pub(super) t: Transaction<'a, Postgres>,
    pub(super) day: Day,
}

impl Reconciliation<'_> {
    /// # Errors
    /// `Sql`.
    pub async fn begin(database: &Database, day: Day) -> Result<Reconciliation<'static>, DatabaseError> {
        let t = database.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        Ok(Reconciliation { t, day })
    }

    /// In order of minute, ad and campaign.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn differing_windows(&mut self) -> Result<Vec<DifferingWindow>, DatabaseError> {
        let mut rows = sqlx::query(
            "SELECT minute, ad_id, campaign_id, stream.state = 'final' AS is_final,
                coalesce(batch.clicks, 0) AS batch_clicks, coalesce(batch.invalid_clicks, 0) AS batch_invalid,
                coalesce(stream.clicks, 0) AS stream_clicks, coalesce(stream.invalid_clicks, 0) AS stream_invalid,
                coalesce(batch.strayed_copies, 0) AS strayed_copies
             FROM (SELECT * FROM billing.batch_ad_minute WHERE minute >= $1 AND minute < $1 + interval '1 day') batch
             FULL JOIN (SELECT * FROM reports.ad_minute WHERE minute >= $1 AND minute < $1 + interval '1 day') stream
                USING (minute, ad_id, campaign_id)
             WHERE coalesce(batch.clicks, 0) <> coalesce(stream.clicks, 0)
             ORDER BY minute, ad_id, campaign_id",
        )
        .bind(self.day.start())
        .fetch(&mut *self.t);
        let mut windows = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let start: DateTime<Utc> = row.try_get("minute")?;
            let is_marked_final = row.try_get::<Option<bool>, _>("is_final")?.unwrap_or(false);
            windows.push(DifferingWindow {
                minute: to_minute(start)?,
                ad_id: row.try_get("ad_id")?,
                campaign_id: row.try_get("campaign_id")?,
                batch_clicks: not_negative(row.try_get("batch_clicks")?, "clicks")?,
                batch_invalid: not_negative(row.try_get("batch_invalid")?, "clicks")?,
                stream_clicks: not_negative(row.try_get("stream_clicks")?, "clicks")?,
                stream_invalid: not_negative(row.try_get("stream_invalid")?, "clicks")?,
                strayed_copies: not_negative(row.try_get("strayed_copies")?, "clicks")?,
                is_marked_final,
            });
        }
        Ok(windows)
    }

    /// The newest window since the day began that is final for the stream, by campaign.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn newest_final_windows(&mut self) -> Result<Vec<(CampaignId, Minute)>, DatabaseError> {
        let rows: Vec<(i64, DateTime<Utc>)> = sqlx::query_as(
            "SELECT campaign_id, max(minute) FROM reports.ad_minute WHERE state = 'final' AND minute >= $1
             GROUP BY campaign_id",
        )
        .bind(self.day.start())
        .fetch_all(&mut *self.t)
        .await?;
        rows.into_iter().map(|(campaign, start)| Ok((campaign.cast_unsigned(), to_minute(start)?))).collect()
    }

    /// Clicks that were counted and not billed, as (campaign, cause, clicks).
    ///
    /// # Errors
    /// `Sql`.
    pub async fn unbilled_clicks(&mut self) -> Result<Vec<(i64, String, i64)>, DatabaseError> {
        Ok(sqlx::query_as(
            "SELECT campaign_id, unbilled_cause, sum(clicks - billed_clicks)::bigint AS clicks
             FROM billing.batch_campaign_day WHERE day = $1 AND unbilled_cause IS NOT NULL GROUP BY 1, 2",
        )
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?)
    }

    /// (Stream clicks, billed clicks) of the day, by campaign. Each campaign is named once.
    ///
    /// # Errors
    /// `Sql`; `Miscounted`.
    pub async fn campaign_totals(&mut self, campaigns: &[i64]) -> Result<HashMap<i64, (i64, i64)>, DatabaseError> {
        assert!(campaigns.windows(2).all(|pair| pair[0] < pair[1]), "each campaign is asked for once");
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT campaign_id,
                coalesce((SELECT sum(clicks) FROM reports.ad_minute
                    WHERE campaign_id = c AND minute >= $2 AND minute < $2 + interval '1 day'), 0)::bigint AS stream_clicks,
                coalesce((SELECT sum(billed_clicks) FROM billing.batch_campaign_day
                    WHERE campaign_id = c AND day = $3), 0)::bigint AS billed_clicks
             FROM unnest($1::bigint[]) AS c, LATERAL (SELECT c AS campaign_id) named",
        )
        .bind(campaigns)
        .bind(self.day.start())
        .bind(self.day.date())
        .fetch_all(&mut *self.t)
        .await?;
        // Every campaign has totals, which may be zero.
        require_count("campaign totals", campaigns.len() as u64, rows.len() as u64)?;
        Ok(rows.into_iter().map(|(campaign_id, stream, billed)| (campaign_id, (stream, billed))).collect())
    }

    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn day_totals(&mut self) -> Result<DayTotals, DatabaseError> {
        let row = sqlx::query(
            "SELECT (SELECT coalesce(sum(clicks), 0)::bigint FROM billing.batch_ad_minute
                    WHERE minute >= $1 AND minute < $1 + interval '1 day') AS batch_clicks,
                (SELECT coalesce(sum(clicks), 0)::bigint FROM reports.ad_minute
                    WHERE minute >= $1 AND minute < $1 + interval '1 day') AS stream_clicks,
                (SELECT coalesce(sum(billed_clicks), 0)::bigint FROM billing.batch_campaign_day WHERE day = $2) AS billed_clicks",
        )
        .bind(self.day.start())
        .bind(self.day.date())
        .fetch_one(&mut *self.t)
        .await?;
        Ok(DayTotals {
            batch_clicks: from_bigint(row.try_get("batch_clicks")?, "clicks")?,
            stream_clicks: from_bigint(row.try_get("stream_clicks")?, "clicks")?,
            billed_clicks: from_bigint(row.try_get("billed_clicks")?, "clicks")?,
        })
    }

    /// Replaces the day's differences and amounts, records which run was compared, and commits.
    ///
    /// # Errors
    /// `Sql`; `OutOfRange`.
    pub async fn replace(
        mut self,
        differences: &[NewDifference],
        amounts: &[CampaignAmounts],
        verdict: &Verdict,
    ) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM billing.reconciliation WHERE day = $1")
            .bind(self.day.date())
            .execute(&mut *self.t)
            .await?;
        for rows in differences.chunks(ROWS_PER_INSERT) {
            self.insert(rows).await?;
        }
        self.replace_amounts(amounts).await?;
        self.record(verdict).await?;
        Ok(self.t.commit().await?)
    }

    /// The run is read in this transaction, so it is the one whose results were compared.
    async fn record(&mut self, verdict: &Verdict) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO billing.reconciled_day
                (day, revision, bill_sha256, batch_clicks, stream_clicks, billed_clicks, unexplained, pages,
                unexplained_amounts)
             SELECT day, revision, bill_sha256, $2, $3, $4, $5, $6, $7
             FROM billing.batch_run WHERE day = $1 ORDER BY revision DESC LIMIT 1
             ON CONFLICT (day) DO UPDATE SET (revision, bill_sha256, batch_clicks, stream_clicks, billed_clicks,
                unexplained, pages, unexplained_amounts, reconciled_at)
                = (excluded.revision, excluded.bill_sha256, excluded.batch_clicks, excluded.stream_clicks,
                excluded.billed_clicks, excluded.unexplained, excluded.pages,
                excluded.unexplained_amounts, now())",
        )
        .bind(self.day.date())
        .bind(to_bigint(verdict.totals.batch_clicks, "clicks")?)
        .bind(to_bigint(verdict.totals.stream_clicks, "clicks")?)
        .bind(to_bigint(verdict.totals.billed_clicks, "clicks")?)
        .bind(to_bigint(verdict.unexplained, "clicks")?)
        .bind(verdict.pages)
        .bind(to_bigint(verdict.unexplained_amounts, "campaigns")?)
        .execute(&mut *self.t)
        .await?;
        Ok(())
    }

    async fn insert(&mut self, rows: &[NewDifference]) -> Result<(), DatabaseError> {
        assert!(rows.iter().all(|d| d.clicks != 0), "a cause that explains no click is not a difference");
        let scopes: Vec<&str> = rows.iter().map(NewDifference::scope).collect();
        let campaigns: Vec<i64> = rows.iter().map(|d| d.campaign_id).collect();
        let ads: Vec<i64> = rows.iter().map(|d| d.window.map_or(0, |(ad_id, _)| ad_id)).collect();
        let midnight = self.day.start();
        let minutes: Vec<DateTime<Utc>> = rows
            .iter()
            .map(|d| d.window.map_or(Ok(midnight), |(_, minute)| to_timestamp(minute.start_ms())))
            .collect::<Result<_, _>>()?;
        let causes: Vec<&str> = rows.iter().map(|d| d.cause).collect();
        let streams: Vec<i64> = rows.iter().map(|d| d.stream_clicks).collect();
        let batches: Vec<i64> = rows.iter().map(|d| d.batch_clicks).collect();
        let clicks: Vec<i64> = rows.iter().map(|d| d.clicks).collect();
        sqlx::query(
            "INSERT INTO billing.reconciliation
                (day, scope, campaign_id, ad_id, minute, cause, stream_clicks, batch_clicks, clicks)
             SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[], $7::bigint[],
                $8::bigint[], $9::bigint[])",
        )
        .bind(self.day.date())
        .bind(scopes)
        .bind(campaigns)
        .bind(ads)
        .bind(minutes)
        .bind(causes)
        .bind(streams)
        .bind(batches)
        .bind(clicks)
        .execute(&mut *self.t)
        .await?;
        Ok(())
    }
}

/// The differences of a day, summed by scope and cause; empty where both sides agree, `None` where no batch has run.
///
/// # Errors
/// `Sql`.
pub async fn differences_by_cause(database: &Database, day: Day) -> Result<Option<Vec<CauseTotals>>, DatabaseError> {
    let has_run: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM billing.batch_run WHERE day = $1)")
        .bind(day.date())
        .fetch_one(database.pool())
        .await?;
    if !has_run {
        return Ok(None);
    }
    let totals = sqlx::query_as(
        "SELECT scope, cause, count(*) AS rows, sum(clicks)::bigint AS clicks FROM billing.reconciliation \
         WHERE day = $1 GROUP BY scope, cause ORDER BY scope, cause",
    )
    .bind(day.date())
    .fetch_all(database.pool())
    .await?;
    Ok(Some(totals))
}
