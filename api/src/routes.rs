//! The public interface as one table: a row says method, path, node role, caller, audit and handler.
//!
//! The router, the OpenAPI document and the tests iterate over the table, so a route is added here and nowhere else.
//! The handler's own annotation describes its parameters and answers; a test shows that it names the row's method and
//! path.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::OpenApi;

use crate::budget::post_check;
use crate::capture::post_clicks;
use crate::catalogue::campaigns;
use crate::cluster::{cluster_view, drain, hot_keys, members};
use crate::dashboard;
use crate::finance::reconciliation;
use crate::operations::{health, metrics_page};
use crate::queries::{aggregated_count, top_k};
use crate::state::{ApiState, Roles};

/// The role that a node needs for a route. A node without it answers 421 and names the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Every node answers.
    Any,
    Capture,
    Serve,
}

impl NodeRole {
    pub const ALL: [NodeRole; 3] = [NodeRole::Any, NodeRole::Capture, NodeRole::Serve];

    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            NodeRole::Any => "any",
            NodeRole::Capture => "capture",
            NodeRole::Serve => "serve",
        }
    }

    pub fn is_among(self, roles: Roles) -> bool {
        match self {
            NodeRole::Any => true,
            NodeRole::Capture => roles.capture,
            NodeRole::Serve => roles.serve,
        }
    }
}

/// For whom a route is meant. Only [`Caller::Source`] is enforced today: a deployment must keep all other routes away
/// from strangers by its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Needs no identity, now or later: probes, and the dashboard, which has no data of its own.
    Anyone,
    /// A producer of clicks with a configured bearer token. With no tokens configured, all callers are one anonymous
    /// source.
    Source,
    /// An ad server that asks before it shows an ad. Not enforced yet.
    AdServer,
    /// A person or system that reads counts and campaigns. Not enforced yet.
    Reader,
    /// A person or system that sets campaigns, terms and budgets. Not enforced yet.
    CampaignManager,
    /// Runs the cluster and reads its state and its proofs. Not enforced yet.
    Operator,
}

impl Caller {
    /// Whether the handler checks the caller today.
    pub fn is_enforced(self) -> bool {
        self == Caller::Source
    }
}

/// Whether a request must leave a record of who changed what. The mark is what the audit log will follow; nothing is
/// recorded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// It changes nothing that an auditor asks about.
    Unaudited,
    EachRequest,
}

/// One row of the table.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub role: NodeRole,
    pub caller: Caller,
    pub audit: Audit,
    /// The OpenAPI operation id, which is the handler's name.
    pub operation: &'static str,
    handler: fn() -> MethodRouter<Arc<ApiState>>,
}

impl Route {
    pub(crate) fn handler(&self) -> MethodRouter<Arc<ApiState>> {
        (self.handler)()
    }
}

macro_rules! routes {
    ($($method:ident $path:literal, $role:ident, $caller:ident, $audit:ident => $module:ident::$handler:ident;)+) => {
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            role: NodeRole::$role,
            caller: Caller::$caller,
            audit: Audit::$audit,
            operation: stringify!($handler),
            handler: || on(MethodFilter::$method, $module::$handler),
        },)+];

        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "clicktally",
                description = "Counts ad clicks exactly once, in real time and again for the invoice.\n\nErrors are RFC 9457 \
                    problems with a stable `type`. Times are RFC 3339 UTC or epoch seconds. Money is integer millionths with a \
                    currency. Ids and amounts above 2^53 - 1 are strings of digits, so that no client rounds them; requests \
                    may send either form. Bodies may be compressed with gzip.",
                license(name = "Apache-2.0", identifier = "Apache-2.0")
            ),
            paths($($module::$handler,)+)
        )]
        pub struct Document;
    };
}

// The raw log itself records each click, with its source: POST /v1/clicks needs no audit record beside it.
routes! {
    POST "/v1/clicks", Capture, Source, Unaudited => post_clicks::post_clicks;

    GET "/v1/ads/{ad_id}/aggregated_count", Serve, Reader, Unaudited => aggregated_count::aggregated_count;
    GET "/v1/ads/top_k", Serve, Reader, Unaudited => top_k::top_k;
    GET "/v1/ads/popular_ads", Serve, Reader, Unaudited => top_k::popular_ads;

    POST "/v1/budget/check", Serve, AdServer, Unaudited => post_check::check_budget;

    POST "/v1/campaigns", Any, CampaignManager, EachRequest => campaigns::create_campaign;
    GET "/v1/campaigns", Any, Reader, Unaudited => campaigns::list_campaigns;
    GET "/v1/campaigns/{campaign_id}", Any, Reader, Unaudited => campaigns::get_campaign;
    PUT "/v1/campaigns/{campaign_id}", Any, CampaignManager, EachRequest => campaigns::put_campaign;

    GET "/v1/reconciliation", Any, Operator, Unaudited => reconciliation::show_reconciliation;

    GET "/v1/cluster", Any, Operator, Unaudited => cluster_view::show_cluster;
    GET "/v1/cluster/hot_keys", Any, Operator, Unaudited => hot_keys::show_hot_keys;
    POST "/v1/cluster/members", Any, Operator, EachRequest => members::add_member;
    DELETE "/v1/cluster/members/{node}", Any, Operator, EachRequest => members::remove_member;
    POST "/v1/cluster/nodes/{node}/drain", Any, Operator, EachRequest => drain::drain_node;
    DELETE "/v1/cluster/nodes/{node}/drain", Any, Operator, EachRequest => drain::undo_drain;
    POST "/v1/cluster/rebalance", Any, Operator, EachRequest => drain::rebalance;

    GET "/healthz", Any, Anyone, Unaudited => health::show_health;
    GET "/readyz", Any, Anyone, Unaudited => health::show_readiness;
    GET "/metrics", Any, Operator, Unaudited => metrics_page::show_metrics;
    GET "/", Any, Anyone, Unaudited => dashboard::show_dashboard;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn documented() -> BTreeSet<(String, String, String)> {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                documented.insert((method.to_uppercase(), path.clone(), name));
            }
        }
        documented
    }

    #[test]
    fn each_row_has_one_operation_that_names_its_method_and_path() {
        let routed: BTreeSet<(String, String, String)> = ROUTES
            .iter()
            .map(|route| (route.method.to_string(), route.path.to_owned(), route.operation.to_owned()))
            .collect();
        assert_eq!(routed.len(), ROUTES.len(), "no method and path occur twice");
        assert_eq!(routed, documented());
    }

    /// A method other than GET changes something, unless it is one of these two.
    const CHANGES_NO_SETTING: [&str; 2] = ["/v1/clicks", "/v1/budget/check"];

    #[test]
    fn each_request_that_changes_a_setting_is_marked_for_the_audit() {
        for route in ROUTES {
            let is_mutating = route.method != Method::GET && !CHANGES_NO_SETTING.contains(&route.path);
            let expected = if is_mutating { Audit::EachRequest } else { Audit::Unaudited };
            assert_eq!(route.audit, expected, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn what_changes_a_setting_is_for_operators_and_managers_of_campaigns() {
        for route in ROUTES.iter().filter(|route| route.audit == Audit::EachRequest) {
            let may = [Caller::Operator, Caller::CampaignManager].contains(&route.caller);
            assert!(may, "{} {} is open to {:?}", route.method, route.path, route.caller);
        }
    }

    #[test]
    fn only_capture_checks_its_caller_today() {
        let enforced: Vec<_> =
            ROUTES.iter().filter(|route| route.caller.is_enforced()).map(|route| route.path).collect();
        assert_eq!(enforced, ["/v1/clicks"]);
    }

    #[test]
    fn no_id_and_no_amount_of_an_answer_is_a_number_that_a_float_would_round() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let exact = ["#/components/schemas/ExactNumber", "#/components/schemas/Scalar"];
        let mut checked = 0;
        for (schema, definition) in document["components"]["schemas"].as_object().unwrap() {
            let Some(properties) = definition["properties"].as_object() else { continue };
            for (name, property) in properties {
                if !name.ends_with("_id") && !name.ends_with("_micros") {
                    continue;
                }
                let text = property.to_string();
                let is_exact = exact.iter().any(|reference| text.contains(reference));
                assert!(is_exact || property["type"] == "string", "{schema}.{name}: {property}");
                checked += 1;
            }
        }
        assert!(checked >= 8, "only {checked} properties were checked");
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let text = document.to_string();
        let mut references = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert!(references.all(|name| document["components"]["schemas"].get(name).is_some()));
    }
}
