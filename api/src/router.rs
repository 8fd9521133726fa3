//! The table of routes as a service of HTTP.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_scalar::{Scalar, Servable};

use crate::problem::{Problem, ProblemKind};
use crate::request::body_bytes::BODY_BYTES_MAX;
use crate::routes::{Document, NodeRole, ROUTES};
use crate::state::{ApiState, Roles};

/// The most of a path that an error repeats.
const PATH_CHARS_SHOWN: usize = 200;

/// The whole public interface of a node: the table, and two pages about it.
pub fn router(state: ApiState) -> Router {
    table(state.roles)
        .route("/openapi.json", axum::routing::get(async || Json(Document::openapi())))
        .merge(Scalar::with_url("/docs", Document::openapi()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(state))
}

/// Every route, whatever the roles: one whose role this node lacks answers with the role's name.
fn table(roles: Roles) -> Router<Arc<ApiState>> {
    NodeRole::ALL.into_iter().fold(Router::new(), |all, role| all.merge(routes_of(role, roles)))
}

fn routes_of(role: NodeRole, roles: Roles) -> Router<Arc<ApiState>> {
    let rows = ROUTES.iter().filter(|route| route.role == role);
    let router = rows.fold(Router::new(), |router, route| router.route(route.path, route.handler()));
    // Decided once at start, so that a request to a node with the role pays nothing for it.
    if role.is_among(roles) {
        return router;
    }
    router.route_layer(middleware::from_fn(move |_: Request, _: Next| async move { role_absent(role) }))
}

fn role_absent(role: NodeRole) -> Problem {
    let role = role.name();
    let detail = format!("this node lacks the role '{role}': ask a node that has it, or add it to [node] roles here");
    Problem::new(ProblemKind::RoleAbsent, detail)
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no path {}; see /docs", shown(&uri)))
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("{} does not support {method}; see /docs", shown(&uri)))
}

fn shown(uri: &Uri) -> String {
    uri.path().chars().take(PATH_CHARS_SHOWN).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;
    use axum::body::Body;
    use axum::http::{StatusCode, header};
    use clicktally_budget::BudgetAnswer;
    use clicktally_proto::click_log::{ClickLog, LogError, OutRecord, ShardReader};
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::event_time::UnixMillis;
    use clicktally_proto::identity::ids::CampaignId;
    use clicktally_proto::identity::log_id::LogId;
    use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;
    use crate::access::capture_slots::CaptureSlots;
    use crate::access::source::Sources;
    use crate::ports::group_rules::GroupRules;
    use crate::ports::id_minter::IdMinter;
    use crate::ports::{BudgetLane, HaltedPart, HaltedParts, OwnShard, OwnShards};

    /// A node that owns nothing, with a log that is not there.
    struct Nothing;

    #[async_trait]
    impl ClickLog for Nothing {
        fn open(&self, _: ShardId, _: u64) -> Result<Box<dyn ShardReader>, LogError> {
            Err(LogError::Unavailable("no log".to_owned()))
        }
        async fn log_id(&self) -> Result<Option<LogId>, LogError> {
            Ok(None)
        }
        async fn end_offset(&self, _: ShardId) -> Result<u64, LogError> {
            Ok(0)
        }
        async fn time_ms(&self) -> Result<UnixMillis, LogError> {
            Ok(0)
        }
        async fn publish(&self, _: Vec<OutRecord>) -> Result<(), LogError> {
            Ok(())
        }
    }

    #[async_trait]
    impl BudgetLane for Nothing {
        async fn check(&self, _: Vec<CampaignId>) -> Vec<BudgetAnswer> {
            Vec::new()
        }
    }

    impl OwnShards for Nothing {
        fn shards(&self) -> BTreeMap<ShardId, OwnShard> {
            BTreeMap::new()
        }
    }

    impl HaltedParts for Nothing {
        fn halted(&self) -> Vec<HaltedPart> {
            Vec::new()
        }
    }

    /// A node without groups.
    pub(crate) fn state_of(roles: Roles, sources: Sources) -> ApiState {
        let minter = IdMinter::default();
        minter.arm(1);
        ApiState {
            node: 1,
            roles,
            groups: Vec::new(),
            partitioner: Partitioner::new(1),
            group_rules: GroupRules::default(),
            clock: Arc::new(SystemClock),
            log: Arc::new(Nothing),
            minter,
            budget: Arc::new(Nothing),
            shards: Arc::new(Nothing),
            halted: Arc::new(Nothing),
            postgres: None,
            sources,
            capture_slots: CaptureSlots::default(),
        }
    }

    fn node_with(roles: Roles) -> Router {
        node_of(roles, Sources::default())
    }

    fn node_of(roles: Roles, sources: Sources) -> Router {
        router(state_of(roles, sources))
    }

    async fn ask(node: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let (status, _, body) = send(node, method, path, b"{}").await;
        (status, body)
    }

    /// Status, content type and body of the answer.
    async fn send(node: &Router, method: &str, path: &str, body: &[u8]) -> (StatusCode, String, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_vec())).unwrap();
        let response = node.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, kind.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned())
    }

    /// The path of a row with 1 in place of each parameter.
    fn concrete(path: &str) -> String {
        let parts: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect();
        parts.join("/")
    }

    #[tokio::test]
    async fn a_route_whose_role_is_absent_names_the_role_and_the_others_answer() {
        let absent_type = ProblemKind::RoleAbsent.uri();
        for roles in [Roles { capture: false, serve: true }, Roles { capture: true, serve: false }] {
            let node = node_with(roles);
            for route in ROUTES {
                let (method, path, role) = (route.method.as_str(), concrete(route.path), route.role);
                let (status, body) = ask(&node, method, &path).await;
                if role.is_among(roles) {
                    assert!(!body.contains(absent_type), "{method} {path}: {body}");
                    assert_ne!(status, StatusCode::MISDIRECTED_REQUEST, "{method} {path}: {body}");
                } else {
                    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{method} {path}: {body}");
                    assert!(body.contains(absent_type) && body.contains(&format!("'{}'", role.name())), "{body}");
                }
            }
        }
    }

    #[tokio::test]
    async fn every_row_of_the_table_is_routed() {
        let node = node_with(Roles { capture: true, serve: true });
        for route in ROUTES {
            let path = concrete(route.path);
            // TRACE is in no row: a path that is routed refuses the method, and one that is not is unknown.
            let (status, body) = ask(&node, "TRACE", &path).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}: {body}");
            let (status, body) = ask(&node, route.method.as_str(), &path).await;
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{} {path}: {body}", route.method);
        }
        assert_eq!(ask(&node, "GET", "/v1/nothing").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn only_a_route_for_sources_asks_for_a_token() {
        let tokens = BTreeMap::from([("secret".to_owned(), "shop".to_owned())]);
        let node = node_of(Roles { capture: true, serve: true }, Sources::new(tokens));
        for route in ROUTES {
            let (status, body) = ask(&node, route.method.as_str(), &concrete(route.path)).await;
            let is_refused = status == StatusCode::UNAUTHORIZED;
            assert_eq!(is_refused, route.caller.is_enforced(), "{} {}: {body}", route.method, route.path);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_without_a_token_is_refused_before_its_body_is_read() {
        let tokens = BTreeMap::from([("secret".to_owned(), "shop".to_owned())]);
        let node = node_of(Roles { capture: true, serve: true }, Sources::new(tokens));
        let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let request = Request::builder().method("POST").uri("/v1/clicks").body(never).unwrap();
        assert_eq!(node.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_path_or_a_query_that_cannot_be_read_is_a_problem() {
        let node = node_with(Roles { capture: true, serve: true });
        let with_parameter = ROUTES.iter().filter(|route| route.path.contains('{'));
        let paths = with_parameter.map(|route| (route.method.as_str(), concrete(route.path).replacen("/1", "/%FF", 1)));
        let twice = ["/v1/ads/1/aggregated_count?last_minutes=1&last_minutes=2", "/v1/ads/top_k?k=1&k=1"];
        let twice = twice.into_iter().chain(["/v1/campaigns?limit=1&limit=2", "/v1/reconciliation?day=x&day=y"]);
        for (method, path) in paths.chain(twice.map(|path| ("GET", path.to_owned()))) {
            let (status, kind, body) = send(&node, method, &path, b"{}").await;
            assert_eq!(
                (status, kind.as_str()),
                (StatusCode::BAD_REQUEST, "application/problem+json"),
                "{path}: {body}"
            );
            assert_eq!(body.contains("is given twice"), path.contains('&'), "{path}: {body}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_body_is_an_error_of_this_node(
            json in "[\\[\\]{}\",:0-9a-z_ \n]{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60),
            field in "(campaign_id|campaign_ids|advertiser_id|budget|node|ad_id|timestamp)",
            value in "(null|1e999|18446744073709551617|-1|\"\\\\ud800\"|\\[null\\]|\\{\\}|7)",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let node = node_with(Roles { capture: true, serve: true });
            let fields = format!("{{\"{field}\": {value}, \"{field}\": {value}}}");
            let once = format!("{{\"{field}\": {value}}}");
            for body in [json.as_bytes(), &bytes, fields.as_bytes(), once.as_bytes()] {
                for route in ROUTES.iter().filter(|route| [Method::POST, Method::PUT].contains(&route.method)) {
                    let (method, path) = (route.method.as_str(), concrete(route.path));
                    let (status, kind, answer) = runtime.block_on(send(&node, method, &path, body));
                    prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{} {}", path, answer);
                    prop_assert!(status.is_success() || kind == "application/problem+json", "{} {}", path, answer);
                }
            }
        }
    }

    #[tokio::test]
    async fn what_runs_a_cluster_is_answered_without_any_role() {
        let node = node_with(Roles { capture: false, serve: false });
        for path in ["/healthz", "/readyz", "/metrics", "/v1/cluster", "/openapi.json", "/docs", "/"] {
            let (status, body) = ask(&node, "GET", path).await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
        }
    }
}
