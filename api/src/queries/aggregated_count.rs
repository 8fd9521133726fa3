//! `GET /v1/ads/{ad_id}/aggregated_count`: how often an ad was clicked in `[from, to)`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::identity::ids::AdId;
use clicktally_proto::money::{Currency, Money};
use serde::Serialize;
use utoipa::ToSchema;

use super::ad_count::{AdCosts, AdCount};
use super::group_view::GroupView;
use super::history;
use super::minute_range::{MinuteRange, parse_range};
use super::minute_source::{EpochDay, Plan, plan};
use crate::history_error::{HistoryError, configured, in_time};
use crate::problem::{Problem, ProblemKind};
use crate::request::path_text::PathText;
use crate::request::query::QueryParameters;
use crate::state::ApiState;
use crate::text_forms::exact_number::ExactNumber;
use crate::text_forms::json_scalar::parse_id;
use crate::text_forms::money_body::MoneyBody;
use crate::text_forms::time_text::format_time;

#[derive(Debug, Serialize, ToSchema)]
pub struct AggregatedCount {
    pub ad_id: ExactNumber,
    /// Inclusive.
    pub from: String,
    /// Exclusive.
    pub to: String,
    pub click_count: u64,
    /// Distinct `user_id`s of the counted clicks; clicks without one are left out. This is an estimate with a
    /// standard error of 1.6 %: two thirds of answers are closer, 95 % are within 3.3 %. Up to a few dozen users it
    /// is nearly exact. Null if it is not known for the whole range: the batch answers a part, more than seven days
    /// come from PostgreSQL, or some rows were written by an earlier version.
    pub unique_users: Option<u64>,
    /// The sum of `cost_per_click` over the clicks that name one above zero. It is informative: invoices use the
    /// campaign's terms. Null if no click names one, if the batch answers a part, or if the campaigns' terms are
    /// unknown or differ in currency.
    pub cost: Option<Cost>,
    /// Always null in this version: filters are refused, never ignored.
    pub filter: Option<String>,
    pub source: Source,
    /// Every click that arrived before this is counted, unless it was late beyond the horizon.
    pub as_of: String,
    /// Grows with every change of the stream's count.
    pub revision: u64,
    /// The state of the least final minute: open, fired, corrected or final.
    pub state: String,
    /// Below this event time no more on-time clicks are expected.
    pub watermark: String,
    /// Age of the oldest proof that a replica read here is current; null if one was never proven current.
    pub staleness_ms: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Cost {
    pub sum: MoneyBody,
    /// How many clicks the sum covers.
    pub click_count: u64,
    /// Rounded down to millionths.
    pub average_cost_per_click: MoneyBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Batch,
    Stream,
    Mixed,
}

impl Source {
    pub fn of(plan: &Plan) -> Source {
        let is_stream = !plan.state.is_empty() || plan.needs_stream_history();
        match (plan.batch.is_empty(), is_stream) {
            (false, false) => Source::Batch,
            (false, true) => Source::Mixed,
            (true, _) => Source::Stream,
        }
    }
}

#[utoipa::path(
    get, path = "/v1/ads/{ad_id}/aggregated_count", tag = "queries",
    params(
        ("ad_id" = u64, Path),
        ("from" = Option<String>, Query, description = "RFC 3339 or epoch seconds, at a full minute, inclusive"),
        ("to" = Option<String>, Query, description = "exclusive"),
        ("last_minutes" = Option<u32>, Query, description = "instead of from and to: this many full minutes before the current one"),
    ),
    responses(
        (status = 200, body = AggregatedCount),
        (status = 400, body = Problem),
        (status = 421, description = "This node lacks the role 'serve'", body = Problem),
        (status = 503, description = "The range includes older minutes and PostgreSQL cannot be reached", body = Problem),
    )
)]
pub async fn aggregated_count(
    State(state): State<Arc<ApiState>>,
    PathText(ad_id): PathText,
    QueryParameters(parameters): QueryParameters,
) -> Result<Json<AggregatedCount>, Problem> {
    let ad_id = parse_id(&ad_id).ok_or_else(|| Problem::invalid("ad_id must be a whole number from 1 to 2^63 - 1"))?;
    let now_ms = state.clock.now_ms();
    let range = parse_range(&parameters, now_ms).map_err(|error| Problem::invalid(error.to_string()))?;
    let views: Vec<GroupView> = state.groups.iter().map(|group| GroupView::of(group, range)).collect();
    let answer = Answer::gather(&state, ad_id, range, views, now_ms).await.map_err(unavailable)?;
    let currency = answer.count.costs.as_ref().and_then(|costs| currency_of(&state, costs));
    Ok(Json(answer.into_json(ad_id, range, currency)))
}

struct Answer {
    count: AdCount,
    least_final: WindowState,
    source: Source,
    views: Vec<GroupView>,
}

impl Answer {
    async fn gather(
        state: &ApiState,
        ad_id: AdId,
        range: MinuteRange,
        views: Vec<GroupView>,
        now_ms: u64,
    ) -> Result<Answer, HistoryError> {
        let batch_days = finished_days(state, range, &views, now_ms).await?;
        let plan = plan(range, &views, &batch_days);
        let mut answer =
            Answer { count: AdCount::default(), least_final: WindowState::Final, source: Source::of(&plan), views };
        answer.add_state(ad_id, &plan);
        if !plan.batch.is_empty() || plan.needs_stream_history() {
            in_time(answer.add_history(state, ad_id, &plan)).await?;
        }
        Ok(answer)
    }

    fn add_state(&mut self, ad_id: AdId, plan: &Plan) {
        let covered = plan.state.iter().flat_map(|range| range.minutes());
        for minute in covered.chain(plan.lingering.iter().copied()) {
            for view in self.views.iter().filter(|view| view.covers(minute)) {
                self.count.merge(view.count(minute, ad_id));
                self.least_final = self.least_final.min(view.state(minute));
            }
        }
    }

    async fn add_history(&mut self, state: &ApiState, ad_id: AdId, plan: &Plan) -> Result<(), HistoryError> {
        let database = configured(state.postgres.as_ref())?;
        for range in &plan.batch {
            self.count.merge(history::batch_count(database, ad_id, *range).await?);
        }
        let minutes: usize = plan.history.iter().map(|range| range.minutes().count()).sum();
        for range in &plan.history {
            let mut old = history::stream_count(database, ad_id, *range).await?;
            if self.count.users.is_some() && minutes <= history::USER_MINUTES_MAX as usize {
                old.count.users = history::stream_users(database, ad_id, *range).await?;
            }
            self.count.merge(old.count);
            self.least_final = self.least_final.min(old.state);
        }
        if plan.lingering.is_empty() {
            return Ok(());
        }
        for row in history::stream_rows(database, ad_id, &plan.lingering).await? {
            let group = usize::from(state.partitioner.group(row.campaign_id).0);
            // A minute that its own group still covers was already counted from there.
            if self.views.get(group).is_some_and(|view| view.covers(row.minute)) {
                continue;
            }
            self.count.merge(row.count);
            self.least_final = self.least_final.min(row.state);
        }
        Ok(())
    }

    fn into_json(self, ad_id: AdId, range: MinuteRange, currency: Option<Currency>) -> AggregatedCount {
        let complete_to_ms = self.views.iter().map(|view| view.complete_to_ms).min().unwrap_or(0);
        let watermark_ms = self.views.iter().map(|view| view.watermark_ms).min().unwrap_or(0);
        AggregatedCount {
            ad_id: ad_id.into(),
            from: format_time(range.from.start_ms()),
            to: format_time(range.to.start_ms()),
            click_count: self.count.clicks,
            unique_users: self.count.users.as_ref().map(UserSketch::estimate),
            cost: self.count.costs.zip(currency).and_then(|(costs, currency)| cost_of(&costs, currency)),
            filter: None,
            source: self.source,
            as_of: format_time(complete_to_ms),
            revision: self.count.revision,
            state: self.least_final.as_str().to_owned(),
            watermark: format_time(watermark_ms),
            staleness_ms: greatest_staleness_ms(&self.views),
        }
    }
}

/// The currency of the costs, if all campaigns that they come from share one.
fn currency_of(state: &ApiState, costs: &AdCosts) -> Option<Currency> {
    let mut currencies = costs.campaigns.iter().map(|&campaign| {
        let group = state.group_of(campaign)?;
        group.read(|group| group.campaign(campaign).map(|campaign| campaign.terms.currency))
    });
    let first = currencies.next()??;
    currencies.all(|currency| currency == Some(first)).then_some(first)
}

fn cost_of(costs: &AdCosts, currency: Currency) -> Option<Cost> {
    let money = |amount_micros| MoneyBody::from(Money { amount_micros, currency });
    Some(Cost {
        sum: money(costs.sum.sum_micros),
        click_count: costs.sum.count,
        average_cost_per_click: money(costs.sum.average_micros()?),
    })
}

/// A batch run covers a day that is over, so a question about today never waits for PostgreSQL. If PostgreSQL cannot be
/// reached and the replicas hold every minute, they answer alone.
async fn finished_days(
    state: &ApiState,
    range: MinuteRange,
    views: &[GroupView],
    now_ms: u64,
) -> Result<BTreeSet<EpochDay>, HistoryError> {
    let Some(database) = &state.postgres else { return Ok(BTreeSet::new()) };
    if EpochDay::of(range.from).end().start_ms() > now_ms {
        return Ok(BTreeSet::new());
    }
    match in_time(history::batch_days(database, range)).await {
        Ok(days) => Ok(days),
        Err(_) if !plan(range, views, &BTreeSet::new()).needs_stream_history() => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// `None` if any replica was never proven current.
pub fn greatest_staleness_ms(views: &[GroupView]) -> Option<u64> {
    let staleness: Option<Vec<_>> = views.iter().map(|view| view.staleness).collect();
    staleness?.into_iter().max().map(|longest| u64::try_from(longest.as_millis()).unwrap_or(u64::MAX))
}

pub fn unavailable(error: HistoryError) -> Problem {
    tracing::warn!(%error, "older minutes cannot be read");
    let rest = "minutes that may still get clicks are available all the same";
    Problem::new(ProblemKind::HistoryUnavailable, format!("{error}; {rest}"))
}
