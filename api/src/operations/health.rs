//! `GET /healthz`: the process is alive. `GET /readyz`: it can take clicks and queries.
//!
//! A node with a halted part stays ready, and says so as "degraded". Its clicks are safe in the log, and a halted shard
//! closes its budgets on every node alike. Taking the node out of the load balancer would turn a delay into an outage.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use clicktally_proto::identity::shard_key::ShardId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::ports::HaltedPart;
use crate::problem::{Problem, ProblemKind};
use crate::state::ApiState;

/// A node is not ready while a replica was last proven current longer ago than this.
pub const READY_STALENESS_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// "alive", "ready", or "degraded": ready, but parts of the node stand still until an operator acts.
    pub status: &'static str,
    /// These parts. Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub halted: Vec<HaltedPart>,
}

#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub async fn show_health() -> Json<Health> {
    Json(Health { status: "alive", halted: Vec::new() })
}

#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses((status = 200, body = Health), (status = 503, description = "Names what is missing", body = Problem))
)]
pub async fn show_readiness(State(state): State<Arc<ApiState>>) -> Result<Json<Health>, Problem> {
    let mut missing: Vec<String> = Vec::new();
    for group in &state.groups {
        match group.staleness() {
            Some(age) if age <= READY_STALENESS_MAX => {}
            Some(age) => {
                missing.push(format!("group {} was last proven current {} ms ago", group.id().0, age.as_millis()))
            }
            None => missing.push(format!("group {} was never proven current", group.id().0)),
        }
    }
    if !state.minter.is_armed() {
        missing.push("no worker id has been leased yet".to_owned());
    }
    missing.extend(state.log_end(ShardId(0)).await.err());
    if missing.is_empty() {
        let halted = state.halted.halted();
        let status = if halted.is_empty() { "ready" } else { "degraded" };
        Ok(Json(Health { status, halted }))
    } else {
        missing.extend(state.halted.halted().into_iter().map(|part| match part.number {
            Some(number) => format!("{} {number} is halted: {}", part.part, part.reason),
            None => format!("{} is halted: {}", part.part, part.reason),
        }));
        Err(Problem::new(ProblemKind::NotReady, missing.join("; ")))
    }
}
