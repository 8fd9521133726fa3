//! `GET /v1/ads/top_k` and its alias `popular_ads`: the ads with the most clicks in the last complete minutes, exactly.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_database::reports;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::AdId;
use clicktally_proto::identity::shard_key::Partitioner;
use serde::Serialize;
use utoipa::ToSchema;

use super::aggregated_count::{greatest_staleness_ms, unavailable};
use super::group_view::GroupView;
use super::minute_range::MinuteRange;
use crate::history_error::{configured, in_time};
use crate::problem::Problem;
use crate::request::query::QueryParameters;
use crate::state::ApiState;
use crate::text_forms::exact_number::ExactNumber;
use crate::text_forms::query_parameters::{ParameterError, Parameters, refuse_unknown, whole_number};
use crate::text_forms::time_text::format_time;

/// Replicas keep windows for at least the allowed lateness.
pub const WINDOW_MINUTES_MAX: u32 = 15;
pub const K_MAX: u32 = 1_000;
const K_DEFAULT: u32 = 100;

#[derive(Debug, Serialize, ToSchema)]
pub struct TopAds {
    pub window_minutes: u32,
    /// Inclusive. The window ends at the lowest watermark of all groups.
    pub from: String,
    /// Exclusive.
    pub to: String,
    pub k: u32,
    /// Always false: every click of the window is counted.
    pub approximate: bool,
    pub ads: Vec<RankedAd>,
    pub as_of: String,
    pub staleness_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct RankedAd {
    /// From 1.
    pub rank: usize,
    pub ad_id: ExactNumber,
    pub click_count: u64,
}

#[utoipa::path(
    get, path = "/v1/ads/top_k", tag = "queries",
    params(
        ("window_minutes" = Option<u32>, Query, description = "1 to 15, default 1"),
        ("k" = Option<u32>, Query, description = "1 to 1,000, default 100"),
    ),
    responses(
        (status = 200, body = TopAds),
        (status = 400, body = Problem),
        (status = 421, description = "This node lacks the role 'serve'", body = Problem),
        (status = 503, description = "A minute of the window has left memory, and PostgreSQL cannot be reached", body = Problem),
    )
)]
pub async fn top_k(
    State(state): State<Arc<ApiState>>,
    QueryParameters(parameters): QueryParameters,
) -> Result<Json<TopAds>, Problem> {
    answer(state, &parameters, ["window_minutes", "k"]).await
}

#[utoipa::path(
    get, path = "/v1/ads/popular_ads", tag = "queries",
    params(
        ("window_size" = Option<u32>, Query, description = "minutes, 1 to 15, default 1"),
        ("top_n" = Option<u32>, Query, description = "1 to 1,000, default 100"),
    ),
    responses(
        (status = 200, body = TopAds),
        (status = 400, body = Problem),
        (status = 421, description = "This node lacks the role 'serve'", body = Problem),
        (status = 503, description = "A minute of the window has left memory, and PostgreSQL cannot be reached", body = Problem),
    )
)]
pub async fn popular_ads(
    State(state): State<Arc<ApiState>>,
    QueryParameters(parameters): QueryParameters,
) -> Result<Json<TopAds>, Problem> {
    answer(state, &parameters, ["window_size", "top_n"]).await
}

async fn answer(
    state: Arc<ApiState>,
    parameters: &Parameters,
    names: [&'static str; 2],
) -> Result<Json<TopAds>, Problem> {
    let (window_minutes, k) = window_and_k(parameters, names).map_err(|error| Problem::invalid(error.to_string()))?;
    let lowest = state.groups.iter().map(|group| group.read(|state| state.watermark_ms())).min().unwrap_or(0);
    let to = Minute::of(lowest);
    let range = MinuteRange { from: Minute(to.0.saturating_sub(window_minutes)), to };
    let views: Vec<GroupView> = state.groups.iter().map(|group| GroupView::of(group, range)).collect();
    let mut clicks = held_by_ad(&views);
    let gone = gone_minutes(range, &views);
    if !gone.is_empty() {
        let database = configured(state.postgres.as_ref()).map_err(unavailable)?;
        let rows = in_time(reports::clicks_of_minutes(database, &gone)).await.map_err(unavailable)?;
        add_gone(&mut clicks, &views, state.partitioner, &rows);
    }
    Ok(Json(TopAds {
        window_minutes,
        from: format_time(range.from.start_ms()),
        to: format_time(range.to.start_ms()),
        k,
        approximate: false,
        as_of: format_time(views.iter().map(|view| view.complete_to_ms).min().unwrap_or(0)),
        staleness_ms: greatest_staleness_ms(&views),
        ads: rank(clicks, usize::try_from(k).unwrap_or(usize::MAX)),
    }))
}

fn window_and_k(parameters: &Parameters, names: [&'static str; 2]) -> Result<(u32, u32), ParameterError> {
    refuse_unknown(parameters, &names)?;
    let [window, k] = names;
    Ok((whole_number(parameters, window, 1, WINDOW_MINUTES_MAX)?, whole_number(parameters, k, K_DEFAULT, K_MAX)?))
}

fn held_by_ad(views: &[GroupView]) -> HashMap<AdId, u64> {
    let mut clicks: HashMap<AdId, u64> = HashMap::new();
    for (_, ad_id, cell) in views.iter().flat_map(|view| view.windows.values()).flat_map(|window| window.cells()) {
        add(&mut clicks, ad_id, cell.clicks());
    }
    clicks
}

fn add(clicks: &mut HashMap<AdId, u64>, ad_id: AdId, more: u64) {
    let sum = clicks.entry(ad_id).or_default();
    *sum = sum.saturating_add(more);
}

/// The minutes that have left the memory of some group: it is ahead of the slowest group, or short of room.
fn gone_minutes(range: MinuteRange, views: &[GroupView]) -> Vec<Minute> {
    range.minutes().filter(|minute| !views.iter().all(|view| view.covers(*minute))).collect()
}

/// Adds the rows of groups that hold the minute no more. The other rows are already counted from memory.
fn add_gone(
    clicks: &mut HashMap<AdId, u64>,
    views: &[GroupView],
    partitioner: Partitioner,
    rows: &[reports::MinuteClicks],
) {
    for row in rows {
        let view = views.get(usize::from(partitioner.group(row.campaign_id).0));
        if view.is_some_and(|view| !view.covers(row.minute)) {
            add(clicks, row.ad_id, row.clicks);
        }
    }
}

/// Most clicks first. Equal counts are ordered by id, so that the same state always gives the same answer.
fn rank(clicks: HashMap<AdId, u64>, k: usize) -> Vec<RankedAd> {
    let mut ads: Vec<(AdId, u64)> = clicks.into_iter().filter(|(_, clicks)| *clicks > 0).collect();
    let order = |a: &(AdId, u64), b: &(AdId, u64)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
    if ads.len() > k {
        ads.select_nth_unstable_by(k, order);
        ads.truncate(k);
    }
    ads.sort_unstable_by(order);
    ads.into_iter()
        .enumerate()
        .map(|(position, (ad_id, click_count))| RankedAd { rank: position + 1, ad_id: ad_id.into(), click_count })
        .collect()
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;
    use proptest::prelude::*;

    use super::*;
    use crate::queries::minute_source::tests::view;

    proptest! {
        #[test]
        fn the_selection_equals_sorting_everything(
            clicks in proptest::collection::hash_map(0_u64..500, 0_u64..20, 0..200), k in 1_usize..50,
        ) {
            let mut expected: Vec<(u64, u64)> = clicks.iter().map(|(ad, n)| (*ad, *n)).filter(|(_, n)| *n > 0).collect();
            expected.sort_by_key(|(ad, n)| (std::cmp::Reverse(*n), *ad));
            expected.truncate(k);
            let ranked: Vec<(u64, u64)> = rank(clicks, k).iter().map(|ad| (ad.ad_id.to_u64().unwrap(), ad.click_count)).collect();
            prop_assert_eq!(ranked, expected);
        }
    }

    #[test]
    fn a_group_that_is_ahead_is_asked_of_postgresql_and_no_click_is_summed_twice() {
        let partitioner = Partitioner::new(2);
        let of_group = |group: u16| (1..).find(|id| partitioner.group(*id) == GroupId(group)).unwrap();
        let (ahead, behind) = (of_group(0), of_group(1));
        let views = [view(1_100, &[]), view(1_002, &[1_000])];
        let range = MinuteRange { from: Minute(1_000), to: Minute(1_002) };
        let gone = gone_minutes(range, &views);
        assert_eq!(gone, [Minute(1_000), Minute(1_001)]);
        let row = |minute, campaign_id, ad_id, clicks| reports::MinuteClicks {
            minute: Minute(minute),
            campaign_id,
            ad_id,
            clicks,
        };
        let rows =
            [row(1_000, ahead, 7, 5), row(1_001, ahead, 7, 2), row(1_000, behind, 7, 9), row(1_000, ahead, 8, 1)];
        let mut clicks = held_by_ad(&views);
        add_gone(&mut clicks, &views, partitioner, &rows);
        assert_eq!(clicks, HashMap::from([(7, 7), (8, 1)]), "group 1 still holds its minutes in memory");
    }

    #[test]
    fn a_request_for_an_approximate_answer_is_refused() {
        let parameters = Parameters::from([("approximate".to_owned(), "true".to_owned())]);
        assert!(window_and_k(&parameters, ["window_minutes", "k"]).is_err());
    }
}
