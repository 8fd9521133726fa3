//! Which path goes where, and the OpenAPI document of the same. A test holds the two together.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_scalar::{Scalar, Servable};

use crate::budget::post_check;
use crate::capture::post_clicks;
use crate::catalogue::campaigns;
use crate::cluster::{cluster_view, drain, hot_keys, members};
use crate::dashboard;
use crate::finance::reconciliation;
use crate::operations::{health, metrics_page};
use crate::problem::{Problem, ProblemKind};

use crate::queries::{aggregated_count, top_k};
use crate::state::{ApiState, Roles};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "clicktally",
        description = "Counts ad clicks exactly once, in real time and again for the invoice.\n\nErrors are RFC 9457 problems \
            with a stable `type`. Times are RFC 3339 UTC or epoch seconds. Money is integer millionths with a currency.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        post_clicks::post_clicks,
        aggregated_count::aggregated_count,
        top_k::top_k,
        top_k::popular_ads,
        post_check::check_budget,
        campaigns::create_campaign,
        campaigns::list_campaigns,
        campaigns::get_campaign,
        campaigns::put_campaign,
        reconciliation::show_reconciliation,
        cluster_view::show_cluster,
        hot_keys::show_hot_keys,
        members::add_member,
        members::remove_member,
        drain::drain_node,
        drain::undo_drain,
        drain::rebalance,
        health::show_health,
        health::show_readiness,
        metrics_page::show_metrics,
        dashboard::show_dashboard,
    )
)]
pub struct Document;

/// The whole public interface of a node.
pub fn router(state: ApiState) -> Router {
    routes(state.roles)
        .route("/openapi.json", axum::routing::get(async || Json(Document::openapi())))
        .merge(Scalar::with_url("/docs", Document::openapi()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(post_clicks::BODY_BYTES_MAX))
        .with_state(Arc::new(state))
}

/// Remembers what it was given, so that a test can compare it with the document.
#[derive(Default)]
struct Routes {
    router: Router<Arc<ApiState>>,
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    fn with<H, T>(mut self, method: Method, path: &'static str, handler: H) -> Routes
    where
        H: Handler<T, Arc<ApiState>>,
        T: 'static,
    {
        // Only methods that exist as filters are used below; another one would be a route that never matches, which the test of
        // this file notices.
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        self.router = self.router.route(path, on(filter, handler));
        self.listed.push((method, path));
        self
    }
}

/// Every route, whatever the roles: one whose role this node lacks says so.
fn routes(roles: Roles) -> Router<Arc<ApiState>> {
    every_node().router.merge(behind("capture", roles.capture, capture().router)).merge(behind(
        "serve",
        roles.serve,
        serve().router,
    ))
}

fn capture() -> Routes {
    Routes::default().with(Method::POST, "/v1/clicks", post_clicks::post_clicks)
}

fn serve() -> Routes {
    Routes::default()
        .with(Method::GET, "/v1/ads/{ad_id}/aggregated_count", aggregated_count::aggregated_count)
        .with(Method::GET, "/v1/ads/top_k", top_k::top_k)
        .with(Method::GET, "/v1/ads/popular_ads", top_k::popular_ads)
        .with(Method::POST, "/v1/budget/check", post_check::check_budget)
}

fn every_node() -> Routes {
    Routes::default()
        .with(Method::POST, "/v1/campaigns", campaigns::create_campaign)
        .with(Method::GET, "/v1/campaigns", campaigns::list_campaigns)
        .with(Method::GET, "/v1/campaigns/{campaign_id}", campaigns::get_campaign)
        .with(Method::PUT, "/v1/campaigns/{campaign_id}", campaigns::put_campaign)
        .with(Method::GET, "/v1/reconciliation", reconciliation::show_reconciliation)
        .with(Method::GET, "/v1/cluster", cluster_view::show_cluster)
        .with(Method::GET, "/v1/cluster/hot_keys", hot_keys::show_hot_keys)
        .with(Method::POST, "/v1/cluster/members", members::add_member)
        .with(Method::DELETE, "/v1/cluster/members/{node}", members::remove_member)
        .with(Method::POST, "/v1/cluster/nodes/{node}/drain", drain::drain_node)
        .with(Method::DELETE, "/v1/cluster/nodes/{node}/drain", drain::undo_drain)
        .with(Method::POST, "/v1/cluster/rebalance", drain::rebalance)
        .with(Method::GET, "/healthz", health::show_health)
        .with(Method::GET, "/readyz", health::show_readiness)
        .with(Method::GET, "/metrics", metrics_page::show_metrics)
        .with(Method::GET, "/", dashboard::show_dashboard)
}

/// Decided once, so that a request of a node that has the role pays nothing for it.
fn behind(role: &'static str, is_present: bool, router: Router<Arc<ApiState>>) -> Router<Arc<ApiState>> {
    if is_present {
        return router;
    }
    router.route_layer(middleware::from_fn(move |_: Request, _: Next| async move { role_absent(role) }))
}

fn role_absent(role: &str) -> Problem {
    let detail = format!("this node lacks the role '{role}': ask a node that has it, or add it to [node] roles here");
    Problem::new(ProblemKind::RoleAbsent, detail)
}

async fn no_such_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(ProblemKind::NotFound, format!("{path} is not a path of this interface; see /docs"))
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(ProblemKind::MethodNotAllowed, format!("{path} does not take {method}; see /docs"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use async_trait::async_trait;
    use axum::body::Body;
    use axum::http::StatusCode;
    use clicktally_budget::BudgetAnswer;
    use clicktally_proto::click_log::{ClickLog, LogError, OutRecord, ShardReader};
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::identity::ids::CampaignId;
    use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
    use tower::ServiceExt;

    use super::*;
    use crate::access::capture_slots::CaptureSlots;
    use crate::access::source::Sources;
    use crate::ports::id_minter::IdMinter;
    use crate::ports::{BudgetLane, OwnShard, OwnShards};

    /// A node that owns nothing and stands on nothing.
    struct Nothing;

    #[async_trait]
    impl ClickLog for Nothing {
        fn open(&self, _: ShardId, _: u64) -> Result<Box<dyn ShardReader>, LogError> {
            Err(LogError::Unavailable("there is none".to_owned()))
        }
        async fn end_offset(&self, _: ShardId) -> Result<u64, LogError> {
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

    fn node_with(roles: Roles) -> Router {
        let minter = IdMinter::default();
        minter.arm(1);
        router(ApiState {
            node: 1,
            roles,
            groups: Vec::new(),
            partitioner: Partitioner::new(1),
            clock: Arc::new(SystemClock),
            log: Arc::new(Nothing),
            minter,
            budget: Arc::new(Nothing),
            shards: Arc::new(Nothing),
            postgres: None,
            sources: Sources::default(),
            capture_slots: CaptureSlots::default(),
        })
    }

    async fn ask(node: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from("{}")).unwrap();
        let response = node.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    const CAPTURE: [(&str, &str); 1] = [("POST", "/v1/clicks")];
    const SERVE: [(&str, &str); 4] = [
        ("GET", "/v1/ads/1/aggregated_count"),
        ("GET", "/v1/ads/top_k"),
        ("GET", "/v1/ads/popular_ads"),
        ("POST", "/v1/budget/check"),
    ];

    #[tokio::test]
    async fn a_route_whose_role_is_absent_names_the_role_and_the_others_answer() {
        for (roles, absent, role, present) in [
            (Roles { capture: false, serve: true }, &CAPTURE[..], "capture", &SERVE[..]),
            (Roles { capture: true, serve: false }, &SERVE[..], "serve", &CAPTURE[..]),
        ] {
            let node = node_with(roles);
            for (method, path) in absent {
                let (status, body) = ask(&node, method, path).await;
                assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{method} {path}: {body}");
                assert!(body.contains("/problems/role-absent") && body.contains(&format!("'{role}'")), "{body}");
            }
            for (method, path) in present {
                let (_, body) = ask(&node, method, path).await;
                assert!(!body.contains("/problems/role-absent"), "{method} {path}: {body}");
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

    #[test]
    fn the_router_and_the_document_name_the_same_paths() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
        let listed = [every_node(), capture(), serve()].into_iter().flat_map(|routes| routes.listed);
        let routed: BTreeSet<(String, String)> =
            listed.map(|(method, path)| (method.to_string(), path.to_owned())).collect();
        assert_eq!(routed, documented);
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let text = document.to_string();
        let mut references = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert!(references.all(|name| document["components"]["schemas"].get(name).is_some()));
    }
}
