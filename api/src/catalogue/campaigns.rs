//! `/v1/campaigns`: terms and budgets, changed through Raft, guarded by revision (ETag / If-Match).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use clicktally_proto::command::{CampaignTerms, Command, Outcome, Rejection};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_state::catalogue::Campaign;
use serde::Serialize;
use utoipa::ToSchema;

use super::campaign_body::{CampaignInput, CampaignOutput};
use crate::problem::{Problem, ProblemKind};
use crate::request::body_bytes::BodyBytes;
use crate::request::path_text::PathText;
use crate::request::query::QueryParameters;
use crate::state::ApiState;
use crate::text_forms::json_scalar::parse_id;
use crate::text_forms::query_parameters::{ParameterError, refuse_unknown, whole_number};

pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// How often an edit without a revision is proposed while other edits of the same campaign come in between.
const EDITS_TRIED_MAX: u32 = 5;

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
pub async fn create_campaign(State(state): State<Arc<ApiState>>, body: BodyBytes) -> Result<Tagged, Problem> {
    // Revision 0 means that the campaign does not exist yet.
    let terms = read_input(&body)?.into_terms(None, Some(0), state.clock.now_ms()).map_err(Problem::invalid)?;
    let already = ProblemKind::AlreadyExists;
    set(&state, terms, false, already, StatusCode::CREATED).await
}

#[utoipa::path(
    put, path = "/v1/campaigns/{campaign_id}", tag = "campaigns", request_body = CampaignInput,
    params(
        ("campaign_id" = u64, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag of the revision to replace; *: the campaign must exist, at any revision; without it, any revision, and a campaign that does not exist is created"),
    ),
    responses(
        (status = 200, body = CampaignOutput),
        (status = 400, body = Problem),
        (status = 409, description = "The group is full, or the currency would change", body = Problem),
        (status = 412, description = "The campaign has changed in the meantime", body = Problem),
        (status = 503, description = "Not decided in time; the change may have been applied", body = Problem),
    )
)]
pub async fn put_campaign(
    State(state): State<Arc<ApiState>>,
    PathText(campaign_id): PathText,
    headers: HeaderMap,
    body: BodyBytes,
) -> Result<Tagged, Problem> {
    let campaign_id = id_of(&campaign_id)?;
    let (expected, must_exist) = match IfMatch::of(&headers)? {
        IfMatch::Absent => (None, false),
        IfMatch::Exists => (None, true),
        IfMatch::Revision(revision) => (Some(revision), false),
    };
    let terms =
        read_input(&body)?.into_terms(Some(campaign_id), expected, state.clock.now_ms()).map_err(Problem::invalid)?;
    set(&state, terms, must_exist, ProblemKind::RevisionMoved, StatusCode::OK).await
}

#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}", tag = "campaigns", params(("campaign_id" = u64, Path)),
    responses((status = 200, description = "With its ETag", body = CampaignOutput), (status = 404, body = Problem))
)]
pub async fn get_campaign(
    State(state): State<Arc<ApiState>>,
    PathText(campaign_id): PathText,
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
    QueryParameters(parameters): QueryParameters,
) -> Result<Json<CampaignPage>, Problem> {
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
    let last = campaigns.keys().take(limit).next_back();
    let next_cursor = last.filter(|_| has_more).map(CampaignId::to_string);
    CampaignPage { items, next_cursor }
}

/// `must_exist`: the campaign is changed, never created.
async fn set(
    state: &ApiState,
    wanted: CampaignTerms,
    must_exist: bool,
    moved: ProblemKind,
    status: StatusCode,
) -> Result<Tagged, Problem> {
    let campaign_id = wanted.campaign_id;
    let group = state
        .group_of(campaign_id)
        .ok_or_else(|| Problem::new(ProblemKind::NotReady, "this node has no replica of the campaign's group"))?;
    for _ in 0..EDITS_TRIED_MAX {
        // The check below must see every edit that was committed before this request.
        group.read_barrier().await?;
        let current = look_up(state, campaign_id);
        if must_exist && current.is_none() {
            let detail = format!("campaign {campaign_id} does not exist, so 'If-Match: *' fails: create it with POST");
            return Err(Problem::new(ProblemKind::RevisionMoved, detail));
        }
        let terms = guarded(current.as_deref(), wanted.clone())?;
        match group.propose(&Command::SetCampaign(terms.clone())).await? {
            Outcome::CampaignSet { revision } => {
                // The local replica may be behind this decision: answer with the terms and revision that were decided.
                let (spend_micros, clicks) =
                    look_up(state, campaign_id).map_or((0, 0), |campaign| (campaign.spend_micros, campaign.clicks));
                return Ok(tagged(status, &Campaign { terms, revision, spend_micros, clicks }));
            }
            // Another edit was faster. The client named no revision to replace, so this edit replaces that one, too.
            Outcome::Rejected(Rejection::RevisionMoved(_)) if wanted.expected_revision.is_none() => {}
            Outcome::Rejected(rejection) => return Err(refused(&rejection, moved)),
            other => return Err(Problem::new(ProblemKind::Undecided, format!("unexpected outcome {other:?}"))),
        }
    }
    let detail = format!("campaign {campaign_id} changes faster than this edit can be checked: send it again");
    Err(Problem::new(ProblemKind::Undecided, detail))
}

/// The terms to propose: they name the revision that they were checked against, so that a race is `RevisionMoved`.
///
/// A campaign's currency never changes: a change would compare what was spent in one currency with a budget in another.
/// This check is here and not in apply, because a cluster may have replicas of an older build that do not know the rule
/// (docs/decisions/017-mixed-versions.md): they would accept what others reject, and their states would diverge. The
/// revision makes the check as strong here: apply accepts the terms only if the ones checked are still in force.
fn guarded(current: Option<&Campaign>, mut wanted: CampaignTerms) -> Result<CampaignTerms, Problem> {
    let revision_now = current.map_or(0, |campaign| campaign.revision);
    let expected = *wanted.expected_revision.get_or_insert(revision_now);
    if let Some(current) = current
        // With any other revision apply rejects the edit, and that answer tells the client more.
        && expected == revision_now
        && current.terms.currency != wanted.currency
    {
        let (id, now, asked) = (wanted.campaign_id, current.terms.currency, wanted.currency);
        let detail = format!(
            "campaign {id} is in {now}, and its currency cannot change to {asked}: create another campaign in {asked}, \
             and set the budget of this one to what it has spent"
        );
        return Err(Problem::new(ProblemKind::CurrencyFixed, detail));
    }
    Ok(wanted)
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

fn read_input(BodyBytes(body): &BodyBytes) -> Result<CampaignInput, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::invalid(error.to_string()))
}

/// The precondition of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfMatch {
    Absent,
    /// `*`: there is a campaign, at any revision.
    Exists,
    Revision(u64),
}

impl IfMatch {
    fn of(headers: &HeaderMap) -> Result<IfMatch, Problem> {
        let mut values = headers.get_all(header::IF_MATCH).into_iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if headers.contains_key(header::IF_MATCH) {
                Err(Problem::invalid("If-Match is given twice: give it once"))
            } else {
                Ok(IfMatch::Absent)
            };
        };
        let text = value.to_str().unwrap_or("").trim();
        if text == "*" {
            return Ok(IfMatch::Exists);
        }
        let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')?.parse().ok());
        let detail = "If-Match must be * or an ETag of this interface, such as \"42\"";
        revision.map(IfMatch::Revision).ok_or_else(|| Problem::invalid(detail))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::command::COMMAND_LEVEL;
    use clicktally_proto::identity::shard_key::GroupId;
    use clicktally_raft_store::disk_storage::DiskStorage;
    use clicktally_raft_store::peers::transport::HttpTransport;
    use clicktally_raft_store::store::RaftStore;
    use clicktally_raft_store::store_config::{RaftTiming, SnapshotRules, StoreConfig};
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::access::source::Sources;
    use crate::router::router;
    use crate::router::tests::state_of;
    use crate::state::Roles;

    /// The interface of a node whose only group it leads alone.
    struct World {
        store: RaftStore,
        node: Router,
        _folder: tempfile::TempDir,
    }

    impl World {
        async fn start() -> World {
            let folder = tempfile::tempdir().unwrap();
            let config = StoreConfig {
                cluster: "campaigns".to_owned(),
                node: 1,
                groups: 1,
                founders: BTreeMap::from([(1, "127.0.0.1:1".to_owned())]),
                timing: RaftTiming::FAST,
                snapshots: SnapshotRules::default(),
                heartbeat_gap_max: Duration::from_secs(1),
                command_level: COMMAND_LEVEL,
            };
            let transport = Arc::new(HttpTransport::new("campaigns").unwrap());
            let storage = Arc::new(DiskStorage::new(folder.path()));
            let store = RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await.unwrap();
            let mut state = state_of(Roles { capture: false, serve: true }, Sources::default());
            state.groups = vec![Arc::new(store.group(GroupId(0)).unwrap().clone())];
            World { store, node: router(state), _folder: folder }
        }

        /// Repeats a request that was not decided in time.
        async fn send(&self, method: &str, path: &str, if_match: Option<&str>, body: &Value) -> (StatusCode, Value) {
            loop {
                let mut request = Request::builder().method(method).uri(path);
                if let Some(tag) = if_match {
                    request = request.header(header::IF_MATCH, tag);
                }
                let request = request.body(Body::from(body.to_string())).unwrap();
                let response = self.node.clone().oneshot(request).await.unwrap();
                let status = response.status();
                let answer = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                if status != StatusCode::SERVICE_UNAVAILABLE {
                    return (status, serde_json::from_slice(&answer).unwrap());
                }
            }
        }
    }

    fn body(currency: &str, budget_micros: i64) -> Value {
        let money = |amount_micros: i64| json!({"amount_micros": amount_micros, "currency": currency});
        json!({"campaign_id": 7, "advertiser_id": 3, "cost_per_click": money(10), "budget": money(budget_micros)})
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_currency_of_a_campaign_never_changes() {
        let world = World::start().await;
        let (status, created) = world.send("POST", "/v1/campaigns", None, &body("USD", 100)).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        let tag = format!("\"{}\"", created["revision"]);

        for if_match in [None, Some(tag.as_str())] {
            let (status, refused) = world.send("PUT", "/v1/campaigns/7", if_match, &body("JPY", 100)).await;
            assert_eq!((status, &refused["type"]), (StatusCode::CONFLICT, &json!(ProblemKind::CurrencyFixed.uri())));
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains("in USD") && detail.contains("create another campaign in JPY"), "{detail}");
        }
        // What would be refused whatever the currency is refused for that reason.
        let (status, refused) = world.send("PUT", "/v1/campaigns/7", Some("\"1000000\""), &body("JPY", 100)).await;
        assert_eq!(
            (status, &refused["type"]),
            (StatusCode::PRECONDITION_FAILED, &json!(ProblemKind::RevisionMoved.uri()))
        );
        let (status, refused) = world.send("POST", "/v1/campaigns", None, &body("JPY", 100)).await;
        assert_eq!((status, &refused["type"]), (StatusCode::CONFLICT, &json!(ProblemKind::AlreadyExists.uri())));
        let (_, kept) = world.send("GET", "/v1/campaigns/7", None, &Value::Null).await;
        assert_eq!((&kept["budget"]["currency"], &kept["revision"]), (&json!("USD"), &created["revision"]));

        // A star names any revision of a campaign that exists, and so never creates one.
        let (status, edited) = world.send("PUT", "/v1/campaigns/7", Some("*"), &body("USD", 150)).await;
        assert_eq!((status, &edited["budget"]["amount_micros"]), (StatusCode::OK, &json!(150)), "{edited}");
        let tag = format!("\"{}\"", edited["revision"]);
        let mut other = body("USD", 100);
        other["campaign_id"] = json!(8);
        let (status, refused) = world.send("PUT", "/v1/campaigns/8", Some("*"), &other).await;
        assert_eq!(
            (status, &refused["type"]),
            (StatusCode::PRECONDITION_FAILED, &json!(ProblemKind::RevisionMoved.uri()))
        );

        // In its currency the campaign changes as before: with a revision, without one, and with two edits at once.
        let (status, _) = world.send("PUT", "/v1/campaigns/7", Some(tag.as_str()), &body("USD", 200)).await;
        assert_eq!(status, StatusCode::OK);
        let (one, two) = (body("USD", 300), body("USD", 400));
        let edits = tokio::join!(
            world.send("PUT", "/v1/campaigns/7", None, &one),
            world.send("PUT", "/v1/campaigns/7", None, &two)
        );
        assert_eq!((edits.0.0, edits.1.0), (StatusCode::OK, StatusCode::OK), "{edits:?}");
        assert_ne!(edits.0.1["revision"], edits.1.1["revision"]);
        world.store.shutdown().await;
    }

    #[test]
    fn terms_are_proposed_against_the_revision_they_were_checked_against() {
        let input: CampaignInput = serde_json::from_value(body("USD", 100)).unwrap();
        let terms = input.into_terms(None, None, 42).unwrap();
        let current = Campaign { terms: terms.clone(), revision: 9, spend_micros: 0, clicks: 0 };
        assert_eq!(guarded(None, terms.clone()).unwrap().expected_revision, Some(0));
        assert_eq!(guarded(Some(&current), terms.clone()).unwrap().expected_revision, Some(9));
        let stale = CampaignTerms { expected_revision: Some(8), ..terms };
        assert_eq!(guarded(Some(&current), stale).unwrap().expected_revision, Some(8));
    }

    #[test]
    fn an_etag_is_a_quoted_revision() {
        let of = |values: &[&str]| {
            let headers = values.iter().map(|value| (header::IF_MATCH, value.parse().unwrap()));
            IfMatch::of(&headers.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }))
        };
        assert_eq!(of(&[]), Ok(IfMatch::Absent));
        assert_eq!(of(&["\"42\""]), Ok(IfMatch::Revision(42)));
        assert_eq!(of(&[" * "]), Ok(IfMatch::Exists));
        for refused in [&["42"][..], &["W/\"42\""], &["\"x\""], &["**"], &["\"1\"", "\"2\""]] {
            assert!(of(refused).is_err(), "{refused:?}");
        }
    }
}
