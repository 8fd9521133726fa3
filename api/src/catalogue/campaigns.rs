//! `/v1/campaigns`: terms and budgets, changed through Raft, guarded by revision (ETag / If-Match).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use clicktally_proto::command::{CampaignTerms, Command, Outcome, Rejection};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_state::catalogue::Campaign;
use serde::Serialize;
use utoipa::ToSchema;

use super::campaign_body::{CampaignInput, CampaignOutput};
use crate::problem::{Problem, ProblemKind};
use crate::state::ApiState;
use crate::text_forms::json_scalar::parse_id;
use crate::text_forms::query_parameters::{ParameterError, Parameters, refuse_unknown, whole_number};

pub const PAGE_ITEMS_MAX: u32 = 1_000;

type Tagged = (StatusCode, [(HeaderName, String); 1], Json<CampaignOutput>);

#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignPage {
    /// In order of campaign id.
    pub items: Vec<CampaignOutput>,
    /// Send it as `cursor` to get the next page; null on the last page.
    pub next_cursor: Option<String>,
}

#[utoipa::path(
    post, path = "/v1/campaigns", tag = "campaigns", request_body = CampaignInput,
    responses(
        (status = 201, body = CampaignOutput),
        (status = 400, body = Problem),
        (status = 409, description = "The campaign already exists, or the group is full", body = Problem),
        (status = 503, description = "Not decided in time; the change may have been applied", body = Problem),
    )
)]
pub async fn create_campaign(
    State(state): State<Arc<ApiState>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Tagged, Problem> {
    // Revision 0 means that the campaign does not exist yet.
    let terms = read_input(body)?.into_terms(None, Some(0), state.clock.now_ms()).map_err(Problem::invalid)?;
    let already = ProblemKind::AlreadyExists;
    set(&state, terms, already, StatusCode::CREATED).await
}

#[utoipa::path(
    put, path = "/v1/campaigns/{campaign_id}", tag = "campaigns", request_body = CampaignInput,
    params(
        ("campaign_id" = u64, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag of the revision to replace; without it, any revision"),
    ),
    responses(
        (status = 200, body = CampaignOutput),
        (status = 400, body = Problem),
        (status = 409, description = "The group is full", body = Problem),
        (status = 412, description = "The campaign has changed in the meantime", body = Problem),
        (status = 503, description = "Not decided in time; the change may have been applied", body = Problem),
    )
)]
pub async fn put_campaign(
    State(state): State<Arc<ApiState>>,
    Path(campaign_id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Tagged, Problem> {
    let campaign_id = id_of(&campaign_id)?;
    let expected = expected_revision(&headers)?;
    let terms =
        read_input(body)?.into_terms(Some(campaign_id), expected, state.clock.now_ms()).map_err(Problem::invalid)?;
    set(&state, terms, ProblemKind::RevisionMoved, StatusCode::OK).await
}

#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}", tag = "campaigns", params(("campaign_id" = u64, Path)),
    responses((status = 200, description = "With its ETag", body = CampaignOutput), (status = 404, body = Problem))
)]
pub async fn get_campaign(
    State(state): State<Arc<ApiState>>,
    Path(campaign_id): Path<String>,
) -> Result<Tagged, Problem> {
    let campaign_id = id_of(&campaign_id)?;
    let campaign = look_up(&state, campaign_id)
        .ok_or_else(|| Problem::new(ProblemKind::NotFound, format!("campaign {campaign_id} does not exist")))?;
    Ok(tagged(StatusCode::OK, &campaign))
}

#[utoipa::path(
    get, path = "/v1/campaigns", tag = "campaigns",
    params(
        ("cursor" = Option<String>, Query, description = "next_cursor of the previous page"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, default 100"),
    ),
    responses((status = 200, body = CampaignPage), (status = 400, body = Problem))
)]
pub async fn list_campaigns(
    State(state): State<Arc<ApiState>>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<CampaignPage>, Problem> {
    let Query(parameters) = parameters.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let invalid = |error: ParameterError| Problem::invalid(error.to_string());
    refuse_unknown(&parameters, &["cursor", "limit"]).map_err(invalid)?;
    let limit = whole_number(&parameters, "limit", 100, PAGE_ITEMS_MAX).map_err(invalid)?;
    let after = match parameters.get("cursor") {
        Some(cursor) => {
            parse_id(cursor).ok_or_else(|| Problem::invalid("cursor must be the next_cursor of an earlier page"))?
        }
        None => 0,
    };
    Ok(Json(page(&state, after, usize::try_from(limit).unwrap_or(usize::MAX))))
}

/// Reads one more campaign than the page holds from every group, so that the last page is recognised.
fn page(state: &ApiState, after: CampaignId, limit: usize) -> CampaignPage {
    let mut campaigns: BTreeMap<CampaignId, Arc<Campaign>> = BTreeMap::new();
    for group in &state.groups {
        let beyond = (Bound::Excluded(after), Bound::Unbounded);
        let some = group.read(|state| {
            let beyond = state.campaigns().range(beyond).take(limit + 1);
            beyond.map(|(id, campaign)| (*id, Arc::clone(campaign))).collect::<Vec<_>>()
        });
        campaigns.extend(some);
    }
    let has_more = campaigns.len() > limit;
    let items: Vec<CampaignOutput> =
        campaigns.values().take(limit).map(|campaign| CampaignOutput::of(campaign)).collect();
    let next_cursor = items.last().filter(|_| has_more).map(|campaign| campaign.campaign_id.to_string());
    CampaignPage { items, next_cursor }
}

async fn set(
    state: &ApiState,
    terms: CampaignTerms,
    moved: ProblemKind,
    status: StatusCode,
) -> Result<Tagged, Problem> {
    let campaign_id = terms.campaign_id;
    let group = state
        .group_of(campaign_id)
        .ok_or_else(|| Problem::new(ProblemKind::NotReady, "this node has no replica of the campaign's group"))?;
    let revision = match group.propose(&Command::SetCampaign(terms.clone())).await? {
        Outcome::CampaignSet { revision } => revision,
        Outcome::Rejected(rejection) => return Err(refused(&rejection, moved)),
        other => return Err(Problem::new(ProblemKind::Undecided, format!("unexpected outcome {other:?}"))),
    };
    // The local replica may be behind this decision: answer with the terms and revision that were decided.
    let (spend_micros, clicks) =
        look_up(state, campaign_id).map_or((0, 0), |campaign| (campaign.spend_micros, campaign.clicks));
    Ok(tagged(status, &Campaign { terms, revision, spend_micros, clicks }))
}

fn refused(rejection: &Rejection, moved: ProblemKind) -> Problem {
    let kind = match rejection {
        Rejection::RevisionMoved(_) => moved,
        Rejection::Limit(_) => ProblemKind::LimitReached,
        Rejection::SettingsDiffer | Rejection::ForeignCampaign(_) => ProblemKind::NotReady,
        _ => ProblemKind::InvalidRequest,
    };
    Problem::new(kind, rejection.to_string())
}

fn look_up(state: &ApiState, campaign_id: CampaignId) -> Option<Arc<Campaign>> {
    state.group_of(campaign_id)?.read(|state| state.campaign(campaign_id).cloned())
}

fn tagged(status: StatusCode, campaign: &Campaign) -> Tagged {
    (status, [(header::ETAG, format!("\"{}\"", campaign.revision))], Json(CampaignOutput::of(campaign)))
}

fn id_of(text: &str) -> Result<CampaignId, Problem> {
    parse_id(text).ok_or_else(|| Problem::invalid("a campaign id must be a whole number from 1 to 2^63 - 1"))
}

fn read_input(body: Result<Bytes, BytesRejection>) -> Result<CampaignInput, Problem> {
    let body = body.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| Problem::invalid(error.to_string()))
}

fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().ok().and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    tag.map(Some).ok_or_else(|| Problem::invalid("If-Match must be an ETag of this interface, such as \"42\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_a_quoted_revision() {
        let mut headers = HeaderMap::new();
        assert_eq!(expected_revision(&headers), Ok(None));
        headers.insert(header::IF_MATCH, "\"42\"".parse().unwrap());
        assert_eq!(expected_revision(&headers), Ok(Some(42)));
        headers.insert(header::IF_MATCH, "42".parse().unwrap());
        assert!(expected_revision(&headers).is_err());
    }
}
