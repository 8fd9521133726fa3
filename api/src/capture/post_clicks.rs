//! `POST /v1/clicks`: read, check, identify, pack, publish, answer. The answer is 202 only for clicks that are
//! durable in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use clicktally_proto::click::invalid_traffic::EVIDENCE_AUTOMATED;
use clicktally_proto::click::record::Click;
use clicktally_proto::identity::ids::ClickId;
use serde::Serialize;
use utoipa::ToSchema;

use super::arrival::Arrival;
use super::body_items::{BodyError, Item, read_items};
use super::capture_metrics::CAPTURE_CLICKS;
use super::click_fields::{ClickRefusal, IncomingClick, check};
use super::records::pack;
use crate::ports::id_minter::IdMinter;
use crate::problem::{ItemError, Problem, ProblemKind};
use crate::request::body_bytes::BodyBytes;
use crate::state::ApiState;

/// How long a request waits for the log before the client is told to retry.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, ToSchema)]
pub struct Captured {
    /// How many clicks of this request are durable in the log now.
    pub accepted: usize,
    pub results: Vec<CapturedClick>,
    /// The items that were refused, and why. Repeating them unchanged cannot succeed.
    pub errors: Vec<ItemError>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CapturedClick {
    /// Position in the request, from 0.
    pub index: usize,
    /// Decimal, as text: it may exceed what JavaScript holds exactly.
    pub click_id: String,
    /// True if an earlier item of the same request is the same click. It is written twice and counted once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

#[utoipa::path(
    post, path = "/v1/clicks", tag = "capture",
    request_body(content = Vec<IncomingClick>, description = "One click, an array of up to 1,000, or one per line (application/x-ndjson)"),
    responses(
        (status = 202, description = "Durable in the log, except those listed under `errors`", body = Captured),
        (status = 400, description = "No click of the request is valid", body = Problem),
        (status = 401, description = "No known bearer token", body = Problem),
        (status = 408, description = "The body did not arrive in time", body = Problem),
        (status = 413, description = "More than 1 MiB (also decompressed) or more than 1,000 clicks", body = Problem),
        (status = 415, description = "A Content-Encoding other than gzip", body = Problem),
        (status = 421, description = "This node lacks the role 'capture'", body = Problem),
        (status = 503, description = "Not acknowledged; repeat the request with the same event ids", body = Problem),
    )
)]
pub async fn post_clicks(
    State(state): State<Arc<ApiState>>,
    request: Request,
) -> Result<(StatusCode, Json<Captured>), Problem> {
    // Who asks, and whether there is room, is decided before a byte of the body is read.
    let headers = request.headers().clone();
    let source = state
        .sources
        .authenticate(&headers)
        .ok_or_else(|| Problem::new(ProblemKind::Unauthorized, "send 'Authorization: Bearer TOKEN'"))?;
    let _slot = state.capture_slots.take().ok_or_else(|| {
        Problem::new(ProblemKind::Overloaded, "this node has reached its limit of captures in flight: try another node")
    })?;
    let BodyBytes(body) = BodyBytes::from_request(request, &state).await?;
    let items = read_items(&body, is_ndjson(&headers)).map_err(unreadable)?;

    let rules = state.group_rules.of(&state.groups).ok_or_else(|| {
        Problem::new(ProblemKind::NotReady, "this node does not know the settings of every group yet: retry")
    })?;
    let arrival = Arrival { now_ms: state.clock.now_ms(), partitioner: state.partitioner, rules };
    let sorted = sort_items(items, source, evidence_of(&headers), &arrival, &state.minter)?;
    let (accepted, refused) = (sorted.clicks.len(), sorted.errors.len());
    count("invalid", refused);
    if accepted == 0 {
        let detail = "every item was refused: errors has the reason for each";
        return Err(Problem::new(ProblemKind::NoValidClick, detail).with_errors(sorted.errors));
    }
    publish(&state, sorted.clicks).await.inspect_err(|_| count("unavailable", accepted))?;
    count("accepted", accepted);
    Ok((StatusCode::ACCEPTED, Json(Captured { accepted, results: sorted.results, errors: sorted.errors })))
}

async fn publish(state: &ApiState, clicks: Vec<Click>) -> Result<(), Problem> {
    let records = pack(clicks, state.partitioner);
    let unavailable = |detail: String| {
        Problem::new(
            ProblemKind::LogUnavailable,
            format!("{detail}; no click is acknowledged: repeat the request with the same event ids"),
        )
    };
    match tokio::time::timeout(PUBLISH_DEADLINE, state.log.publish(records)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Err(_) => Err(unavailable(format!("the log did not answer within {} s", PUBLISH_DEADLINE.as_secs()))),
    }
}

struct Sorted {
    clicks: Vec<Click>,
    results: Vec<CapturedClick>,
    errors: Vec<ItemError>,
}

/// Fails as a whole only if an id must be minted and cannot be: a request is never accepted in part for that reason.
fn sort_items(
    items: Vec<Item>,
    source: &str,
    evidence: u32,
    arrival: &Arrival<'_>,
    minter: &IdMinter,
) -> Result<Sorted, Problem> {
    let mut sorted = Sorted { clicks: Vec::with_capacity(items.len()), results: Vec::new(), errors: Vec::new() };
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let checked = item.map_err(ClickRefusal::from).and_then(|incoming| check(incoming, source, evidence, arrival));
        let mut click = match checked {
            Ok(click) => click,
            Err(refusal) => {
                sorted.errors.push(ItemError::new(index, refusal.field(), refusal.problem_kind(), refusal.to_string()));
                continue;
            }
        };
        let id = if click.event_id.is_empty() {
            minter.mint(arrival.now_ms).ok_or_else(|| {
                Problem::new(
                    ProblemKind::NotReady,
                    "this node has not leased a worker id yet: send event ids, or retry",
                )
            })?
        } else {
            ClickId::foreign(source, click.campaign_id, &click.event_id)
        };
        click.click_id = id.0;
        sorted.results.push(CapturedClick { index, click_id: id.0.to_string(), duplicate: !seen.insert(id) });
        sorted.clicks.push(click);
    }
    Ok(sorted)
}

/// A browser that fetches ahead of its user declares it. No person has clicked then.
fn evidence_of(headers: &HeaderMap) -> u32 {
    let declares = |name: &str| {
        let value = headers.get(name).map_or(&[][..], |value| value.as_bytes());
        value.to_ascii_lowercase().starts_with(b"prefetch")
    };
    if ["sec-purpose", "purpose", "x-moz"].into_iter().any(declares) { EVIDENCE_AUTOMATED } else { 0 }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let value = value.to_ascii_lowercase();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"].iter().any(|known| value.starts_with(known))
}

fn unreadable(error: BodyError) -> Problem {
    let kind = match error {
        BodyError::TooMany => ProblemKind::BodyTooLarge,
        BodyError::Empty | BodyError::Unclosed(_) | BodyError::BehindArray => ProblemKind::InvalidRequest,
    };
    Problem::new(kind, error.to_string())
}

fn count(outcome: &str, clicks: usize) {
    CAPTURE_CLICKS.with_label_values(&[outcome]).inc_by(u64::try_from(clicks).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::Partitioner;

    use super::*;

    fn arrival() -> Arrival<'static> {
        Arrival { now_ms: 1_700_000_000_000, partitioner: Partitioner::new(1), rules: &[] }
    }

    fn item(json: &str) -> Item {
        IncomingClick::read(json.as_bytes())
    }

    #[test]
    fn good_items_pass_beside_bad_ones_and_a_repeat_is_marked() {
        let items = vec![
            item(r#"{"event_id": "a", "timestamp": 1700000000, "campaign_id": 1, "ad_id": 1}"#),
            item(r#"{"event_id": "b", "timestamp": 1, "campaign_id": 1, "ad_id": 1}"#),
            item(r#"{"event_id": "a", "timestamp": 1700000000, "campaign_id": 1, "ad_id": 1}"#),
            item("7"),
        ];
        let sorted = sort_items(items, "shop", 0, &arrival(), &IdMinter::default()).unwrap_or_else(|_| panic!());
        assert_eq!(sorted.results.iter().map(|r| (r.index, r.duplicate)).collect::<Vec<_>>(), [(0, false), (2, true)]);
        assert_eq!(sorted.clicks.len(), 2);
        assert_eq!(sorted.clicks[0].click_id, ClickId::foreign("shop", 1, "a").0);
        let errors: Vec<_> = sorted.errors.iter().map(|e| (e.index, e.r#type.as_str())).collect();
        assert_eq!(errors, [(1, ProblemKind::ClickTimestampOutOfRange.uri()), (3, ProblemKind::ClickMalformed.uri()),]);
    }

    #[test]
    fn ids_are_minted_only_under_a_leased_worker_id() {
        let minter = IdMinter::default();
        let click = || vec![item(r#"{"timestamp": 1700000000, "campaign_id": 1, "ad_id": 1}"#)];
        assert!(sort_items(click(), "shop", 0, &arrival(), &minter).is_err());
        minter.arm(3);
        let sorted = sort_items(click(), "shop", 0, &arrival(), &minter).unwrap_or_else(|_| panic!());
        assert!(!ClickId(sorted.clicks[0].click_id).is_foreign());
    }

    #[test]
    fn a_declared_prefetch_is_evidence() {
        let mut headers = HeaderMap::new();
        assert_eq!(evidence_of(&headers), 0);
        headers.insert("sec-purpose", "prefetch;prerender".parse().unwrap());
        assert_eq!(evidence_of(&headers), EVIDENCE_AUTOMATED);
    }
}
