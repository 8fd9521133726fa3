//! `GET /v1/reconciliation?day=`: the differences between the stream and the batch, by cause, and what both charge.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_database::Day;
use clicktally_database::billing::{CauseTotals, CurrencyAmounts, amounts_by_currency, differences_by_cause};
use serde::Serialize;
use utoipa::ToSchema;

use crate::history_error::{HistoryError, configured, in_time};
use crate::problem::{Problem, ProblemKind};
use crate::request::query::QueryParameters;
use crate::state::ApiState;
use crate::text_forms::exact_number::ExactNumber;
use crate::text_forms::query_parameters::refuse_unknown;

#[derive(Debug, Serialize, ToSchema)]
pub struct Reconciliation {
    pub day: String,
    /// Per scope (`ad_minute`: counted clicks; `campaign`: billed clicks) and cause; empty where both sides agree.
    pub differences: Vec<Difference>,
    /// What stream and batch charge, by currency, before the budgets apply. Empty before the first reconciliation.
    pub amounts: Vec<Amounts>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Difference {
    pub scope: String,
    pub cause: String,
    /// How many windows or campaigns differ by this cause.
    pub rows: i64,
    /// The batch's clicks less the stream's, as far as this cause explains the difference.
    pub clicks: i64,
}

impl From<CauseTotals> for Difference {
    fn from(totals: CauseTotals) -> Difference {
        let CauseTotals { scope, cause, rows, clicks } = totals;
        Difference { scope, cause, rows, clicks }
    }
}

/// The amounts of all campaigns in one currency, in millionths of it: `batch_micros - stream_micros = counted_micros +
/// terms_changed_micros`, but for what is unexplained.
#[derive(Debug, Serialize, ToSchema)]
pub struct Amounts {
    /// Absent for campaigns without terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    pub stream_micros: ExactNumber,
    pub batch_micros: ExactNumber,
    /// The part of `batch_micros` that the budgets cover.
    pub billed_micros: ExactNumber,
    /// Clicks that only one side counts.
    pub counted_micros: ExactNumber,
    /// The same clicks at prices of different times.
    pub terms_changed_micros: ExactNumber,
    /// Without a cause. Excesses and deficits do not cancel.
    pub unexplained_micros: ExactNumber,
}

impl From<CurrencyAmounts> for Amounts {
    fn from(CurrencyAmounts { currency, amounts }: CurrencyAmounts) -> Amounts {
        Amounts {
            currency: currency.map(|currency| currency.to_string()),
            stream_micros: amounts.stream_micros.into(),
            batch_micros: amounts.batch_micros.into(),
            billed_micros: amounts.billed_micros.into(),
            counted_micros: amounts.counted_micros.into(),
            terms_changed_micros: amounts.terms_changed_micros.into(),
            unexplained_micros: amounts.unexplained_micros.into(),
        }
    }
}

#[utoipa::path(
    get, path = "/v1/reconciliation", tag = "operations",
    params(("day" = String, Query, description = "of event time, UTC, as 2026-01-31")),
    responses(
        (status = 200, body = Reconciliation),
        (status = 400, body = Problem),
        (status = 404, description = "No batch has run for that day", body = Problem),
        (status = 503, body = Problem),
    )
)]
pub async fn show_reconciliation(
    State(state): State<Arc<ApiState>>,
    QueryParameters(parameters): QueryParameters,
) -> Result<Json<Reconciliation>, Problem> {
    refuse_unknown(&parameters, &["day"]).map_err(|error| Problem::invalid(error.to_string()))?;
    let day: Day = parameters
        .get("day")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Problem::invalid("give day as YYYY-MM-DD"))?;
    let unavailable = |error: HistoryError| Problem::new(ProblemKind::HistoryUnavailable, error.to_string());
    let database = configured(state.postgres.as_ref()).map_err(unavailable)?;
    let differences = in_time(differences_by_cause(database, day)).await.map_err(unavailable)?;
    let differences = differences.ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            format!("no batch has run for {day}: start one with clicktally billing run --day {day}"),
        )
    })?;
    let differences = differences.into_iter().map(Difference::from).collect();
    let amounts = in_time(amounts_by_currency(database, day)).await.map_err(unavailable)?;
    let amounts = amounts.into_iter().map(Amounts::from).collect();
    Ok(Json(Reconciliation { day: day.to_string(), differences, amounts }))
}
