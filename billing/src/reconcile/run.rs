//! One reconciliation of one day.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use clicktally_proto::identity::shard_key::ShardId;
use futures::TryStreamExt;
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Row};

use super::explain::{Cause, Cell, explain};
use crate::archive::{ArchiveStore, files_of_newest_run};
use crate::batch::{BatchOptions, LateClick, ShardQuery, by_shard};
use crate::day::Day;
use crate::error::{BillingError, unsigned};
use crate::metrics::BillingMetrics;

/// More unexplained clicks than one in this many of the batch's page somebody.
const UNEXPLAINED_ONE_IN: u64 = 1_000;
/// Rows written in one statement.
const ROWS_PER_INSERT: usize = 10_000;

/// Clicks of a day, and how many differ for which cause; all absolute numbers, differences of opposite sign do not cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconciliationSummary {
    pub day: Day,
    /// Distinct valid clicks by the batch.
    pub batch_clicks: u64,
    /// The same by the stream, without late ones.
    pub stream_clicks: u64,
    pub billed_clicks: u64,
    pub late: u64,
    pub duplicate: u64,
    pub invalid: u64,
    pub stream_pending: u64,
    pub unexplained: u64,
    pub budget_cap: u64,
    pub unknown_campaign: u64,
    pub currency_changed: u64,
}

impl ReconciliationSummary {
    fn of_cause(&self, cause: Cause) -> u64 {
        match cause {
            Cause::Late => self.late,
            Cause::Duplicate => self.duplicate,
            Cause::Invalid => self.invalid,
            Cause::StreamPending => self.stream_pending,
            Cause::Unexplained => self.unexplained,
            Cause::BudgetCap => self.budget_cap,
            Cause::UnknownCampaign => self.unknown_campaign,
            Cause::CurrencyChanged => self.currency_changed,
        }
    }

    /// Unexplained beyond 0.1 % of the batch's clicks.
    pub fn pages(&self) -> bool {
        self.unexplained.saturating_mul(UNEXPLAINED_ONE_IN) > self.batch_clicks
    }
}

/// Compares the newest batch run of a day with what the stream reported of it, and replaces the day's differences.
///
/// # Errors
/// `NotRun` before the first batch run of the day.
pub async fn reconcile(
    pool: &PgPool,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
    metrics: &BillingMetrics,
) -> Result<ReconciliationSummary, BillingError> {
    let late = late_winners(pool, store, day, options).await?;
    // One snapshot: the stream's writer goes on meanwhile.
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let mut differences = compare_windows(&mut transaction, day, &late).await?;
    let campaigns = compare_campaigns(&mut transaction, day, &differences).await?;
    differences.extend(campaigns);
    let summary = summarise(&mut transaction, day, &differences).await?;
    sqlx::query("DELETE FROM billing.reconciliation WHERE day = $1")
        .bind(day.date())
        .execute(&mut *transaction)
        .await?;
    for rows in differences.chunks(ROWS_PER_INSERT) {
        insert(&mut transaction, day, rows).await?;
    }
    transaction.commit().await?;
    publish(&summary, metrics);
    Ok(summary)
}

type WindowKey = (i64, i64, u32);

/// Valid clicks the batch counts from the very record the stream put aside as late, by (campaign, ad, minute).
async fn late_winners(
    pool: &PgPool,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
) -> Result<HashMap<WindowKey, i64>, BillingError> {
    let files = files_of_newest_run(pool, day).await?;
    let mut found = HashMap::new();
    for (shard, files) in by_shard(&files) {
        let late = late_clicks(pool, day, shard).await?;
        if late.is_empty() {
            continue;
        }
        let query = ShardQuery::open(store, &files, day, options.memory_bytes_max).await?;
        for (campaign_id, ad_id, minute, clicks) in query.late_winners(&late).await? {
            *found.entry((campaign_id, ad_id, minute)).or_insert(0) += clicks;
        }
    }
    Ok(found)
}

async fn late_clicks(pool: &PgPool, day: Day, shard: ShardId) -> Result<Vec<LateClick>, BillingError> {
    sqlx::query(
        "SELECT click_id, log_offset FROM reports.late_click
         WHERE valid AND shard = $1 AND event_time >= $2 AND event_time < $2 + interval '1 day'",
    )
    .bind(i32::from(shard.0))
    .bind(day.start())
    .fetch_all(pool)
    .await?
    .iter()
    .map(|row| {
        let click_id: i64 = row.try_get("click_id")?;
        Ok(LateClick {
            // Stored as its bit pattern.
            click_id: click_id.cast_unsigned(),
            log_offset: unsigned(row.try_get("log_offset")?, "log offset")?,
        })
    })
    .collect()
}

/// A row of `billing.reconciliation`. The scope is the campaign's where `ad_id` and `minute` are absent.
#[derive(Debug, Clone, Copy)]
struct Difference {
    campaign_id: i64,
    window: Option<(i64, DateTime<Utc>)>,
    cause: Cause,
    stream_clicks: i64,
    batch_clicks: i64,
    clicks: i64,
}

async fn compare_windows(
    t: &mut PgConnection,
    day: Day,
    late: &HashMap<WindowKey, i64>,
) -> Result<Vec<Difference>, BillingError> {
    // Windows become final in order: what lies before a final one and is absent will not come any more.
    let final_before: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT max(minute) FROM reports.ad_minute WHERE state = 'final'")
            .fetch_one(&mut *t)
            .await?;
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
    .bind(day.start())
    .fetch(t);
    let mut differences = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let minute: DateTime<Utc> = row.try_get("minute")?;
        let (campaign_id, ad_id): (i64, i64) = (row.try_get("campaign_id")?, row.try_get("ad_id")?);
        let is_marked_final = row.try_get::<Option<bool>, _>("is_final")?.unwrap_or(false);
        let number = u32::try_from(minute.timestamp() / 60).map_err(|_| BillingError::Overflow("minute"))?;
        let cell = Cell {
            batch_clicks: row.try_get("batch_clicks")?,
            batch_invalid: row.try_get("batch_invalid")?,
            stream_clicks: row.try_get("stream_clicks")?,
            stream_invalid: row.try_get("stream_invalid")?,
            late: late.get(&(campaign_id, ad_id, number)).copied().unwrap_or(0),
            strayed_copies: row.try_get("strayed_copies")?,
            is_final: is_marked_final || final_before.is_some_and(|before| minute < before),
        };
        differences.extend(explain(&cell).into_iter().map(|(cause, clicks)| Difference {
            campaign_id,
            window: Some((ad_id, minute)),
            cause,
            stream_clicks: cell.stream_clicks,
            batch_clicks: cell.batch_clicks,
            clicks,
        }));
    }
    Ok(differences)
}

/// The same for whole campaigns, against what is billed: the windows' causes summed, and what was counted but not billed.
async fn compare_campaigns(
    t: &mut PgConnection,
    day: Day,
    windows: &[Difference],
) -> Result<Vec<Difference>, BillingError> {
    let mut causes: BTreeMap<i64, BTreeMap<Cause, i64>> = BTreeMap::new();
    for window in windows {
        *causes.entry(window.campaign_id).or_default().entry(window.cause).or_insert(0) += window.clicks;
    }
    let unbilled = sqlx::query(
        "SELECT campaign_id, unbilled_cause, sum(clicks - billed_clicks)::bigint AS clicks
         FROM billing.batch_campaign_day WHERE day = $1 AND unbilled_cause IS NOT NULL GROUP BY 1, 2",
    )
    .bind(day.date())
    .fetch_all(&mut *t)
    .await?;
    for row in unbilled {
        let name: String = row.try_get("unbilled_cause")?;
        let cause = Cause::ALL.into_iter().find(|cause| cause.as_str() == name).unwrap_or(Cause::Unexplained);
        let clicks: i64 = row.try_get("clicks")?;
        *causes.entry(row.try_get("campaign_id")?).or_default().entry(cause).or_insert(0) -= clicks;
    }
    let campaigns: Vec<i64> = causes.keys().copied().collect();
    let totals: HashMap<i64, (i64, i64)> = sqlx::query(
        "SELECT campaign_id,
            coalesce((SELECT sum(clicks) FROM reports.ad_minute
                WHERE campaign_id = c AND minute >= $2 AND minute < $2 + interval '1 day'), 0)::bigint AS stream_clicks,
            coalesce((SELECT sum(billed_clicks) FROM billing.batch_campaign_day
                WHERE campaign_id = c AND day = $3), 0)::bigint AS billed_clicks
         FROM unnest($1::bigint[]) AS c, LATERAL (SELECT c AS campaign_id) named",
    )
    .bind(&campaigns)
    .bind(day.start())
    .bind(day.date())
    .fetch_all(t)
    .await?
    .iter()
    .map(|row| Ok((row.try_get("campaign_id")?, (row.try_get("stream_clicks")?, row.try_get("billed_clicks")?))))
    .collect::<Result<_, sqlx::Error>>()?;
    let mut differences = Vec::new();
    for (campaign_id, causes) in causes {
        let (stream_clicks, batch_clicks) = totals.get(&campaign_id).copied().unwrap_or_default();
        differences.extend(causes.into_iter().filter(|(_, clicks)| *clicks != 0).map(|(cause, clicks)| Difference {
            campaign_id,
            window: None,
            cause,
            stream_clicks,
            batch_clicks,
            clicks,
        }));
    }
    Ok(differences)
}

async fn summarise(
    t: &mut PgConnection,
    day: Day,
    differences: &[Difference],
) -> Result<ReconciliationSummary, BillingError> {
    let row = sqlx::query(
        "SELECT (SELECT coalesce(sum(clicks), 0)::bigint FROM billing.batch_ad_minute
                WHERE minute >= $1 AND minute < $1 + interval '1 day') AS batch_clicks,
            (SELECT coalesce(sum(clicks), 0)::bigint FROM reports.ad_minute
                WHERE minute >= $1 AND minute < $1 + interval '1 day') AS stream_clicks,
            (SELECT coalesce(sum(billed_clicks), 0)::bigint FROM billing.batch_campaign_day WHERE day = $2) AS billed_clicks",
    )
    .bind(day.start())
    .bind(day.date())
    .fetch_one(t)
    .await?;
    let sum = |cause: Cause| -> u64 {
        // Windows tell what the stream missed; what was not billed is known per campaign only.
        let is_of_campaign = matches!(cause, Cause::BudgetCap | Cause::UnknownCampaign | Cause::CurrencyChanged);
        differences
            .iter()
            .filter(|d| d.cause == cause && d.window.is_none() == is_of_campaign)
            .map(|d| d.clicks.unsigned_abs())
            .sum()
    };
    Ok(ReconciliationSummary {
        day,
        batch_clicks: unsigned(row.try_get("batch_clicks")?, "clicks")?,
        stream_clicks: unsigned(row.try_get("stream_clicks")?, "clicks")?,
        billed_clicks: unsigned(row.try_get("billed_clicks")?, "clicks")?,
        late: sum(Cause::Late),
        duplicate: sum(Cause::Duplicate),
        invalid: sum(Cause::Invalid),
        stream_pending: sum(Cause::StreamPending),
        unexplained: sum(Cause::Unexplained),
        budget_cap: sum(Cause::BudgetCap),
        unknown_campaign: sum(Cause::UnknownCampaign),
        currency_changed: sum(Cause::CurrencyChanged),
    })
}

async fn insert(t: &mut PgConnection, day: Day, rows: &[Difference]) -> Result<(), BillingError> {
    let scopes: Vec<&str> = rows.iter().map(|d| if d.window.is_some() { "ad_minute" } else { "campaign" }).collect();
    let campaigns: Vec<i64> = rows.iter().map(|d| d.campaign_id).collect();
    let ads: Vec<i64> = rows.iter().map(|d| d.window.map_or(0, |(ad_id, _)| ad_id)).collect();
    let minutes: Vec<DateTime<Utc>> = rows.iter().map(|d| d.window.map_or(day.start(), |(_, minute)| minute)).collect();
    let causes: Vec<&str> = rows.iter().map(|d| d.cause.as_str()).collect();
    let streams: Vec<i64> = rows.iter().map(|d| d.stream_clicks).collect();
    let batches: Vec<i64> = rows.iter().map(|d| d.batch_clicks).collect();
    let clicks: Vec<i64> = rows.iter().map(|d| d.clicks).collect();
    sqlx::query(
        "INSERT INTO billing.reconciliation
            (day, scope, campaign_id, ad_id, minute, cause, stream_clicks, batch_clicks, clicks)
         SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::text[], $7::bigint[],
            $8::bigint[], $9::bigint[])",
    )
    .bind(day.date())
    .bind(scopes)
    .bind(campaigns)
    .bind(ads)
    .bind(minutes)
    .bind(causes)
    .bind(streams)
    .bind(batches)
    .bind(clicks)
    .execute(t)
    .await?;
    Ok(())
}

fn publish(summary: &ReconciliationSummary, metrics: &BillingMetrics) {
    for cause in Cause::ALL {
        // For a gauge only; money and alerts use the integers.
        #[allow(clippy::cast_precision_loss)]
        let ratio = summary.of_cause(cause) as f64 / summary.batch_clicks.max(1) as f64;
        metrics.divergence_ratio.with_label_values(&[cause.as_str()]).set(ratio);
    }
    let (day, unexplained, batch_clicks) = (summary.day, summary.unexplained, summary.batch_clicks);
    if summary.pages() {
        tracing::error!(%day, unexplained, batch_clicks, "stream and batch differ by more than 0.1 % without a cause: \
            compare billing.reconciliation with the archive before finalising the day");
    } else {
        tracing::info!(%day, unexplained, batch_clicks, late = summary.late, "reconciled");
    }
}
