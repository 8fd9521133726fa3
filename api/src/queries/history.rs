//! Counts that have left the replicated state, from PostgreSQL: the batch's view and the stream's.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use clicktally_proto::counts::cell_counts::CostSum;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{AdId, CampaignId};
use sqlx::{PgPool, Row};
use thiserror::Error;

use super::ad_count::{AdCosts, AdCount};
use super::minute_range::MinuteRange;
use super::minute_source::Day;
use crate::text_forms::time_text::to_utc;

/// A query that takes longer is given up: the answer is a problem, not a hanging page.
pub const HISTORY_DEADLINE: Duration = Duration::from_secs(2);

/// Users are merged row by row, so of so many minutes at most; a query takes those of a day.
pub const USER_MINUTES_MAX: u32 = 7 * USER_MINUTES_PER_QUERY;
const USER_MINUTES_PER_QUERY: u32 = 24 * 60;

#[derive(Debug, Error)]
pub enum HistoryError {
    #[error("this node has no PostgreSQL configured")]
    NotConfigured,
    #[error("PostgreSQL did not answer within {} s", HISTORY_DEADLINE.as_secs())]
    Timeout,
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    #[error("a value read from PostgreSQL is out of range")]
    OutOfRange,
}

/// One row of `reports.ad_minute`, of a minute that some replica still holds.
#[derive(Debug, Clone)]
pub struct HistoryRow {
    pub minute: Minute,
    pub campaign_id: CampaignId,
    pub count: AdCount,
    pub state: WindowState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryCount {
    pub count: AdCount,
    /// The least final state of any row; final where there is none.
    pub state: WindowState,
}

/// Runs a query under [`HISTORY_DEADLINE`].
pub async fn in_time<T>(query: impl Future<Output = Result<T, HistoryError>>) -> Result<T, HistoryError> {
    tokio::time::timeout(HISTORY_DEADLINE, query).await.map_err(|_| HistoryError::Timeout)?
}

/// Days touching the range that a batch run saw to their end. A run of a day still going on is not the whole day: the stream
/// knows more.
pub async fn batch_days(pool: &PgPool, range: MinuteRange) -> Result<BTreeSet<Day>, HistoryError> {
    let last = Day::of(Minute(range.to.0 - 1));
    let rows = sqlx::query(
        "SELECT DISTINCT day FROM billing.batch_run \
         WHERE day BETWEEN $1 AND $2 AND computed_at >= (day + 1)::timestamp AT TIME ZONE 'UTC'",
    )
    .bind(date(Day::of(range.from))?)
    .bind(date(last)?)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| day(row.try_get(0)?)).collect()
}

/// Neither users nor costs: the batch keeps clicks only.
pub async fn batch_count(pool: &PgPool, ad_id: AdId, range: MinuteRange) -> Result<AdCount, HistoryError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(clicks), 0)::bigint FROM billing.batch_ad_minute \
         WHERE minute >= $1 AND minute < $2 AND ad_id = $3",
    )
    .bind(start_of(range.from)?)
    .bind(start_of(range.to)?)
    .bind(signed(ad_id)?)
    .fetch_one(pool)
    .await?;
    Ok(AdCount { clicks: unsigned(row.try_get(0)?)?, revision: 0, users: None, costs: None })
}

/// All but the users, which [`stream_users`] merges.
pub async fn stream_count(pool: &PgPool, ad_id: AdId, range: MinuteRange) -> Result<HistoryCount, HistoryError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(clicks), 0)::bigint, coalesce(max(revision), 0)::bigint, \
                coalesce(min(array_position(ARRAY['open', 'fired', 'corrected', 'final'], state)), 4), \
                coalesce(sum(cost_sum_micros), 0)::bigint, coalesce(sum(cost_count), 0)::bigint, \
                coalesce(array_agg(DISTINCT campaign_id) FILTER (WHERE cost_count > 0), '{}') \
         FROM reports.ad_minute WHERE minute >= $1 AND minute < $2 AND ad_id = $3",
    )
    .bind(start_of(range.from)?)
    .bind(start_of(range.to)?)
    .bind(signed(ad_id)?)
    .fetch_one(pool)
    .await?;
    let campaigns: Vec<i64> = row.try_get(5)?;
    let costs = AdCosts {
        sum: CostSum { sum_micros: row.try_get(3)?, count: unsigned(row.try_get(4)?)? },
        campaigns: campaigns.into_iter().map(unsigned).collect::<Result<_, _>>()?,
    };
    let count = AdCount {
        clicks: unsigned(row.try_get(0)?)?,
        revision: unsigned(row.try_get(1)?)?,
        users: None,
        costs: Some(costs),
    };
    let position: i32 = row.try_get(2)?;
    let state = WindowState::try_from(position - 1).map_err(|_| HistoryError::OutOfRange)?;
    Ok(HistoryCount { count, state })
}

/// The users of the range's rows; `None` where a row was written before users were kept. At most [`USER_MINUTES_MAX`] minutes.
pub async fn stream_users(pool: &PgPool, ad_id: AdId, range: MinuteRange) -> Result<Option<UserSketch>, HistoryError> {
    assert!(range.to.0 - range.from.0 <= USER_MINUTES_MAX);
    let mut users = UserSketch::default();
    for from in range.minutes().step_by(USER_MINUTES_PER_QUERY as usize) {
        let to = range.to.min(Minute(from.0 + USER_MINUTES_PER_QUERY));
        let rows = sqlx::query(
            "SELECT user_sketch FROM reports.ad_minute \
             WHERE minute >= $1 AND minute < $2 AND ad_id = $3 AND clicks > 0",
        )
        .bind(start_of(from)?)
        .bind(start_of(to)?)
        .bind(signed(ad_id)?)
        .fetch_all(pool)
        .await?;
        for row in &rows {
            let Some(sketch) = sketch_of(row.try_get(0)?)? else { return Ok(None) };
            users.merge(&sketch);
        }
    }
    Ok(Some(users))
}

fn sketch_of(bytes: Option<&[u8]>) -> Result<Option<UserSketch>, HistoryError> {
    bytes.map(UserSketch::from_bytes).transpose().map_err(|_| HistoryError::OutOfRange)
}

pub async fn stream_rows(pool: &PgPool, ad_id: AdId, minutes: &[Minute]) -> Result<Vec<HistoryRow>, HistoryError> {
    let starts: Vec<DateTime<Utc>> = minutes.iter().map(|minute| start_of(*minute)).collect::<Result<_, _>>()?;
    let rows = sqlx::query(
        "SELECT minute, campaign_id, clicks, revision, \
                array_position(ARRAY['open', 'fired', 'corrected', 'final'], state), \
                user_sketch, cost_sum_micros, cost_count \
         FROM reports.ad_minute WHERE minute = ANY($1) AND ad_id = $2",
    )
    .bind(starts)
    .bind(signed(ad_id)?)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let start: DateTime<Utc> = row.try_get(0)?;
            let position: i32 = row.try_get(4)?;
            let campaign_id = unsigned(row.try_get(1)?)?;
            let costs = CostSum { sum_micros: row.try_get(6)?, count: unsigned(row.try_get(7)?)? };
            Ok(HistoryRow {
                minute: Minute::of(unsigned(start.timestamp_millis())?),
                campaign_id,
                count: AdCount {
                    clicks: unsigned(row.try_get(2)?)?,
                    revision: unsigned(row.try_get(3)?)?,
                    users: sketch_of(row.try_get(5)?)?,
                    costs: Some(AdCosts::of_campaign(campaign_id, costs)),
                },
                state: WindowState::try_from(position - 1).map_err(|_| HistoryError::OutOfRange)?,
            })
        })
        .collect()
}

fn start_of(minute: Minute) -> Result<DateTime<Utc>, HistoryError> {
    to_utc(minute.start_ms()).ok_or(HistoryError::OutOfRange)
}

fn date(day: Day) -> Result<NaiveDate, HistoryError> {
    NaiveDate::from_epoch_days(i32::try_from(day.0).map_err(|_| HistoryError::OutOfRange)?)
        .ok_or(HistoryError::OutOfRange)
}

fn day(date: NaiveDate) -> Result<Day, HistoryError> {
    u32::try_from(date.to_epoch_days()).map(Day).map_err(|_| HistoryError::OutOfRange)
}

fn signed(id: u64) -> Result<i64, HistoryError> {
    i64::try_from(id).map_err(|_| HistoryError::OutOfRange)
}

fn unsigned(value: i64) -> Result<u64, HistoryError> {
    u64::try_from(value).map_err(|_| HistoryError::OutOfRange)
}
