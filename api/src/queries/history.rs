//! Counts of minutes that have left the replicated state, from PostgreSQL: the batch's view and the stream's.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use clicktally_database::{Database, DatabaseError, Day, billing, reports};
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{AdId, CampaignId};

use super::ad_count::{AdCosts, AdCount};
use super::minute_range::MinuteRange;
use super::minute_source::EpochDay;
use crate::history_error::HistoryError;

/// Users are merged row by row, so over at most this many minutes; one query takes those of a day.
pub const USER_MINUTES_MAX: u32 = 7 * USER_MINUTES_PER_QUERY;
const USER_MINUTES_PER_QUERY: u32 = 24 * 60;

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
    /// The least final state of any row; final if there are no rows.
    pub state: WindowState,
}

/// Days of the range that a batch run covered to their end. A run during the day does not cover the whole day: the
/// stream has more.
pub async fn batch_days(database: &Database, range: MinuteRange) -> Result<BTreeSet<EpochDay>, HistoryError> {
    let last = EpochDay::of(Minute(range.to.0 - 1));
    let days = billing::finished_days(database, date(EpochDay::of(range.from))?, date(last)?).await?;
    days.into_iter().map(day).collect()
}

/// Without users and costs: the batch keeps only clicks.
pub async fn batch_count(database: &Database, ad_id: AdId, range: MinuteRange) -> Result<AdCount, HistoryError> {
    let clicks = billing::clicks_of_ad(database, ad_id, range.from..range.to).await?;
    Ok(AdCount { clicks, revision: 0, users: None, costs: None })
}

/// Everything except the users, which [`stream_users`] merges.
pub async fn stream_count(database: &Database, ad_id: AdId, range: MinuteRange) -> Result<HistoryCount, HistoryError> {
    let totals = reports::totals_of_ad(database, ad_id, range.from..range.to).await?;
    let costs = AdCosts { sum: totals.costs, campaigns: totals.campaigns_with_costs };
    let count = AdCount { clicks: totals.clicks, revision: totals.revision, users: None, costs: Some(costs) };
    Ok(HistoryCount { count, state: totals.state })
}

/// The users of the range's rows; `None` if a row was written before users were kept. At most [`USER_MINUTES_MAX`]
/// minutes.
pub async fn stream_users(
    database: &Database,
    ad_id: AdId,
    range: MinuteRange,
) -> Result<Option<UserSketch>, HistoryError> {
    assert!(range.to.0 - range.from.0 <= USER_MINUTES_MAX, "the caller bounds the range, and so the rows merged");
    let mut users = UserSketch::default();
    for from in range.minutes().step_by(USER_MINUTES_PER_QUERY as usize) {
        let to = range.to.min(Minute(from.0 + USER_MINUTES_PER_QUERY));
        for sketch in reports::users_of_ad(database, ad_id, from..to).await? {
            let Some(sketch) = sketch else { return Ok(None) };
            users.merge(&sketch);
        }
    }
    Ok(Some(users))
}

pub async fn stream_rows(
    database: &Database,
    ad_id: AdId,
    minutes: &[Minute],
) -> Result<Vec<HistoryRow>, HistoryError> {
    let rows = reports::rows_of_ad(database, ad_id, minutes).await?;
    let history = rows.into_iter().map(|row| HistoryRow {
        minute: row.minute,
        campaign_id: row.campaign_id,
        count: AdCount {
            clicks: row.clicks,
            revision: row.revision,
            users: row.users,
            costs: Some(AdCosts::of_campaign(row.campaign_id, row.costs)),
        },
        state: row.state,
    });
    Ok(history.collect())
}

fn date(day: EpochDay) -> Result<Day, DatabaseError> {
    let date = i32::try_from(day.0).ok().and_then(NaiveDate::from_epoch_days);
    date.map(Day::from).ok_or(DatabaseError::OutOfRange("day"))
}

fn day(day: Day) -> Result<EpochDay, HistoryError> {
    let number = u32::try_from(day.date().to_epoch_days());
    Ok(number.map(EpochDay).map_err(|_| DatabaseError::OutOfRange("day"))?)
}
