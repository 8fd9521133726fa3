//! `POST /v1/budget/check`: one or many campaigns, one answer each.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clicktally_budget::{BudgetAnswer, BudgetDecision, CHECK_DEADLINE, close_missing};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check_metrics::BUDGET_CHECK;
use crate::problem::Problem;
use crate::request::body_bytes::BodyBytes;
use crate::state::ApiState;
use crate::text_forms::exact_number::ExactNumber;
use crate::text_forms::json_scalar::{Scalar, parse_id};
use crate::text_forms::money_body::MoneyBody;
use crate::text_forms::time_text::format_time;

pub const CAMPAIGNS_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetCheck {
    pub campaign_id: Option<Scalar>,
    /// 1 to 1,000 ids.
    pub campaign_ids: Option<Vec<Scalar>>,
}

/// The answer about one campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetAnswerBody {
    pub campaign_id: ExactNumber,
    /// serve, throttle or pause.
    pub decision: &'static str,
    /// With throttle: how many of a thousand impressions to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve_permille: Option<u16>,
    pub remaining: Option<MoneyBody>,
    pub as_of: Option<String>,
    pub staleness_ms: Option<u64>,
    /// From this time on, by this node's clock, the answer means pause.
    pub expires_at: String,
    /// The same for a client whose clock may differ: how long the answer holds. Count it from the moment at which the
    /// question was sent.
    pub valid_for_ms: u64,
    pub reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetAnswers {
    /// In the order asked.
    pub results: Vec<BudgetAnswerBody>,
}

#[utoipa::path(
    post, path = "/v1/budget/check", tag = "budget", request_body = BudgetCheck,
    responses(
        (status = 200, description = "Also if nothing is known: the answer is then pause", body = BudgetAnswers),
        (status = 400, body = Problem),
        (status = 421, description = "This node lacks the role 'serve'", body = Problem),
    )
)]
pub async fn check_budget(
    State(state): State<Arc<ApiState>>,
    BodyBytes(body): BodyBytes,
) -> Result<Json<BudgetAnswers>, Problem> {
    let started = state.clock.monotonic();
    let campaigns = read_campaigns(&body).map_err(Problem::invalid)?;
    // An answer that comes too late is none: every campaign without an answer is closed below.
    let checked = tokio::time::timeout(CHECK_DEADLINE, state.budget.check(campaigns.clone())).await;
    let answers = checked.unwrap_or_default();
    let now_ms = state.clock.now_ms();
    let results =
        close_missing(&campaigns, answers, now_ms).into_iter().map(|answer| to_body(answer, now_ms)).collect();
    BUDGET_CHECK.observe(state.clock.monotonic().saturating_sub(started).as_secs_f64());
    Ok(Json(BudgetAnswers { results }))
}

fn read_campaigns(body: &[u8]) -> Result<Vec<CampaignId>, String> {
    let check: BudgetCheck = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let asked = match (check.campaign_id, check.campaign_ids) {
        (Some(one), None) => vec![one],
        (None, Some(many)) if (1..=CAMPAIGNS_MAX).contains(&many.len()) => many,
        (None, Some(_)) => return Err(format!("campaign_ids must hold 1 to {CAMPAIGNS_MAX} ids")),
        _ => return Err("give either campaign_id or campaign_ids".to_owned()),
    };
    let parsed = asked.into_iter().enumerate().map(|(index, id)| {
        let wrong = || format!("campaign id {index} must be a whole number from 1 to 2^63 - 1 (counted from 0)");
        parse_id(&id.into_text()).ok_or_else(wrong)
    });
    parsed.collect()
}

fn to_body(answer: BudgetAnswer, now_ms: UnixMillis) -> BudgetAnswerBody {
    let (decision, serve_permille) = match answer.decision {
        BudgetDecision::Serve => ("serve", None),
        BudgetDecision::Throttle { serve_permille } => ("throttle", Some(serve_permille)),
        BudgetDecision::Pause => ("pause", None),
    };
    BudgetAnswerBody {
        campaign_id: answer.campaign_id.into(),
        decision,
        serve_permille,
        remaining: answer.remaining.map(MoneyBody::from),
        as_of: (answer.as_of_ms > 0).then(|| format_time(answer.as_of_ms)),
        staleness_ms: answer.staleness.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        expires_at: format_time(answer.expires_at_ms),
        valid_for_ms: answer.expires_at_ms.saturating_sub(now_ms),
        reason: answer.reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_or_many_campaigns_are_understood() {
        assert_eq!(read_campaigns(br#"{"campaign_id": "7"}"#), Ok(vec![7]));
        assert_eq!(read_campaigns(br#"{"campaign_ids": [7, "8"]}"#), Ok(vec![7, 8]));
        for refused in
            ["{}", r#"{"campaign_ids": []}"#, r#"{"campaign_id": 0}"#, r#"{"campaign_id": 1, "campaign_ids": [2]}"#]
        {
            assert!(read_campaigns(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn an_answer_says_how_long_it_holds_whatever_the_clock_of_its_reader() {
        let valid_for = |expires_at_ms| {
            let closed = close_missing(&[7], Vec::new(), 5_000).remove(0);
            to_body(BudgetAnswer { expires_at_ms, ..closed }, 5_000).valid_for_ms
        };
        assert_eq!((valid_for(5_900), valid_for(5_000), valid_for(4_000)), (900, 0, 0));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_campaigns(&body);
        }
    }
}
