//! Which path goes where, and the OpenAPI document of the same. A test holds the two together.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, Uri};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_scalar::{Scalar, Servable};

use crate::admin::{campaigns, cluster, health, members, reconciliation};
use crate::budget_check::post_check;
use crate::capture::post_clicks;
use crate::dashboard;
use crate::error_response::{Problem, ProblemKind};
use crate::metrics;
use crate::queries::{aggregated_count, top_k};
use crate::state::ApiState;

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
        cluster::show_cluster,
        members::add_member,
        members::remove_member,
        health::show_health,
        health::show_readiness,
        metrics::show_metrics,
        dashboard::show_dashboard,
    )
)]
pub struct Document;

/// The whole public interface of a node.
pub fn router(state: ApiState) -> Router {
    let router = routes().router;
    router
        .route("/openapi.json", axum::routing::get(async || Json(Document::openapi())))
        .merge(Scalar::with_url("/docs", Document::openapi()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(post_clicks::BODY_BYTES_MAX))
        .with_state(Arc::new(state))
}

/// Remembers what it was given, so that a test can compare it with the document.
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

fn routes() -> Routes {
    Routes { router: Router::new(), listed: Vec::new() }
        .with(Method::POST, "/v1/clicks", post_clicks::post_clicks)
        .with(Method::GET, "/v1/ads/{ad_id}/aggregated_count", aggregated_count::aggregated_count)
        .with(Method::GET, "/v1/ads/top_k", top_k::top_k)
        .with(Method::GET, "/v1/ads/popular_ads", top_k::popular_ads)
        .with(Method::POST, "/v1/budget/check", post_check::check_budget)
        .with(Method::POST, "/v1/campaigns", campaigns::create_campaign)
        .with(Method::GET, "/v1/campaigns", campaigns::list_campaigns)
        .with(Method::GET, "/v1/campaigns/{campaign_id}", campaigns::get_campaign)
        .with(Method::PUT, "/v1/campaigns/{campaign_id}", campaigns::put_campaign)
        .with(Method::GET, "/v1/reconciliation", reconciliation::show_reconciliation)
        .with(Method::GET, "/v1/cluster", cluster::show_cluster)
        .with(Method::POST, "/v1/cluster/members", members::add_member)
        .with(Method::DELETE, "/v1/cluster/members/{node}", members::remove_member)
        .with(Method::GET, "/healthz", health::show_health)
        .with(Method::GET, "/readyz", health::show_readiness)
        .with(Method::GET, "/metrics", metrics::show_metrics)
        .with(Method::GET, "/", dashboard::show_dashboard)
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_router_and_the_document_name_the_same_paths() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                documented.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routed: BTreeSet<(String, String)> =
            routes().listed.iter().map(|(method, path)| (method.to_string(), (*path).to_owned())).collect();
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
