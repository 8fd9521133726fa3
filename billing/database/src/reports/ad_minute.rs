//! `reports.ad_minute`, read for queries about minutes that no replica holds any more.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, Utc};
use clicktally_proto::counts::cell_counts::CostSum;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{AdId, CampaignId};
use sqlx::Row;

use crate::column::{from_bigint, to_bigint, to_minute, to_timestamp};
use crate::connection::Database;
use crate::error::DatabaseError;

/// One row.
#[derive(Debug, Clone)]
pub struct AdMinute {
    pub minute: Minute,
    pub campaign_id: CampaignId,
    pub clicks: u64,
    pub revision: u64,
    pub state: WindowState,
    /// `None` in a row written before users were kept.
    pub users: Option<UserSketch>,
    pub costs: CostSum,
}

/// The sums over some minutes of one ad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdTotals {
    pub clicks: u64,
    /// The highest of any row; 0 where there is none.
    pub revision: u64,
    /// The least final of any row; final where there is none.
    pub state: WindowState,
    pub costs: CostSum,
    /// The campaigns with any cost.
    pub campaigns_with_costs: BTreeSet<CampaignId>,
}

/// # Errors
/// `Sql`; `OutOfRange` for a value that no writer of ours stores.
///
/// Costs saturate as everywhere (`CostSum::merge`): rows from before a click's cost had a bound must not hide the
/// others.
pub async fn totals_of_ad(database: &Database, ad_id: AdId, minutes: Range<Minute>) -> Result<AdTotals, DatabaseError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(clicks), 0)::bigint, coalesce(max(revision), 0)::bigint, \
                coalesce(min(array_position(ARRAY['open', 'fired', 'corrected', 'final'], state)), 4), \
                least(coalesce(sum(cost_sum_micros), 0), 9223372036854775807)::bigint, coalesce(sum(cost_count), 0)::bigint, \
                coalesce(array_agg(DISTINCT campaign_id) FILTER (WHERE cost_count > 0), '{}') \
         FROM reports.ad_minute WHERE minute >= $1 AND minute < $2 AND ad_id = $3",
    )
    .bind(to_timestamp(minutes.start.start_ms())?)
    .bind(to_timestamp(minutes.end.start_ms())?)
    .bind(to_bigint(ad_id, "ad id")?)
    .fetch_one(database.pool())
    .await?;
    let campaigns: Vec<i64> = row.try_get(5)?;
    Ok(AdTotals {
        clicks: from_bigint(row.try_get(0)?, "clicks")?,
        revision: from_bigint(row.try_get(1)?, "revision")?,
        state: state_at(row.try_get(2)?)?,
        costs: CostSum { sum_micros: row.try_get(3)?, count: from_bigint(row.try_get(4)?, "costs")? },
        campaigns_with_costs: campaigns
            .into_iter()
            .map(|id| from_bigint(id, "campaign id"))
            .collect::<Result<_, _>>()?,
    })
}

/// The users of each row with clicks; `None` in a row written before users were kept. Memory is at most one sketch
/// for each row, so the caller bounds the range.
///
/// # Errors
/// `Sql`; `OutOfRange` for a damaged sketch.
pub async fn users_of_ad(
    database: &Database,
    ad_id: AdId,
    minutes: Range<Minute>,
) -> Result<Vec<Option<UserSketch>>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT user_sketch FROM reports.ad_minute WHERE minute >= $1 AND minute < $2 AND ad_id = $3 AND clicks > 0",
    )
    .bind(to_timestamp(minutes.start.start_ms())?)
    .bind(to_timestamp(minutes.end.start_ms())?)
    .bind(to_bigint(ad_id, "ad id")?)
    .fetch_all(database.pool())
    .await?;
    rows.iter().map(|row| sketch_of(row.try_get(0)?)).collect()
}

/// The rows of the named minutes.
///
/// # Errors
/// `Sql`; `OutOfRange` for a value that no writer of ours stores.
pub async fn rows_of_ad(database: &Database, ad_id: AdId, minutes: &[Minute]) -> Result<Vec<AdMinute>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT minute, campaign_id, clicks, revision, \
                array_position(ARRAY['open', 'fired', 'corrected', 'final'], state), \
                user_sketch, cost_sum_micros, cost_count \
         FROM reports.ad_minute WHERE minute = ANY($1) AND ad_id = $2",
    )
    .bind(starts(minutes)?)
    .bind(to_bigint(ad_id, "ad id")?)
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AdMinute {
                minute: to_minute(row.try_get(0)?)?,
                campaign_id: from_bigint(row.try_get(1)?, "campaign id")?,
                clicks: from_bigint(row.try_get(2)?, "clicks")?,
                revision: from_bigint(row.try_get(3)?, "revision")?,
                state: state_at(row.try_get(4)?)?,
                users: sketch_of(row.try_get(5)?)?,
                costs: CostSum { sum_micros: row.try_get(6)?, count: from_bigint(row.try_get(7)?, "costs")? },
            })
        })
        .collect()
}

/// The clicks of one ad and campaign in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteClicks {
    pub minute: Minute,
    pub campaign_id: CampaignId,
    pub ad_id: AdId,
    pub clicks: u64,
}

/// The rows of the named minutes that have clicks, of every ad.
///
/// # Errors
/// `Sql`; `OutOfRange` for a value that no writer of ours stores.
pub async fn clicks_of_minutes(database: &Database, minutes: &[Minute]) -> Result<Vec<MinuteClicks>, DatabaseError> {
    let rows = sqlx::query(
        "SELECT minute, campaign_id, ad_id, clicks FROM reports.ad_minute WHERE minute = ANY($1) AND clicks > 0",
    )
    .bind(starts(minutes)?)
    .fetch_all(database.pool())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(MinuteClicks {
                minute: to_minute(row.try_get(0)?)?,
                campaign_id: from_bigint(row.try_get(1)?, "campaign id")?,
                ad_id: from_bigint(row.try_get(2)?, "ad id")?,
                clicks: from_bigint(row.try_get(3)?, "clicks")?,
            })
        })
        .collect()
}

fn starts(minutes: &[Minute]) -> Result<Vec<DateTime<Utc>>, DatabaseError> {
    minutes.iter().map(|minute| to_timestamp(minute.start_ms())).collect()
}

/// PostgreSQL counts positions from 1, in the order of finality.
fn state_at(position: i32) -> Result<WindowState, DatabaseError> {
    WindowState::try_from(position - 1).map_err(|_| DatabaseError::OutOfRange("window state"))
}

fn sketch_of(bytes: Option<&[u8]>) -> Result<Option<UserSketch>, DatabaseError> {
    bytes.map(UserSketch::from_bytes).transpose().map_err(|_| DatabaseError::OutOfRange("user sketch"))
}
