//! `/v1/cluster/nodes/{node}/drain` and `/v1/cluster/rebalance`: an operator moves work between nodes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use super::members::node_id;
use crate::problem::{Problem, ProblemKind};
use crate::request::path_text::PathText;
use crate::state::ApiState;

#[utoipa::path(
    post, path = "/v1/cluster/nodes/{node}/drain", tag = "cluster", params(("node" = u64, Path)),
    responses(
        (status = 204, description = "It gets no new work, and its shards and leaderships move to other nodes; \
            GET /v1/cluster says when it is safe to stop"),
        (status = 400, body = Problem),
        (status = 404, description = "The node does not exist", body = Problem),
        (status = 503, description = "Not decided in time; repeat it", body = Problem),
    )
)]
pub async fn drain_node(State(state): State<Arc<ApiState>>, PathText(node): PathText) -> Result<StatusCode, Problem> {
    set_draining(&state, node_id(&node)?, true).await
}

#[utoipa::path(
    delete, path = "/v1/cluster/nodes/{node}/drain", tag = "cluster", params(("node" = u64, Path)),
    responses(
        (status = 204, description = "It gets its share of the work again"),
        (status = 400, body = Problem),
        (status = 404, description = "The node does not exist", body = Problem),
        (status = 503, description = "Not decided in time; repeat it", body = Problem),
    )
)]
pub async fn undo_drain(State(state): State<Arc<ApiState>>, PathText(node): PathText) -> Result<StatusCode, Problem> {
    set_draining(&state, node_id(&node)?, false).await
}

#[utoipa::path(
    post, path = "/v1/cluster/rebalance", tag = "cluster",
    responses(
        (status = 204, description = "Every group looks once for moves that even out the load, even if the gain is small"),
        (status = 503, description = "Not decided in time; repeat it", body = Problem),
    )
)]
pub async fn rebalance(State(state): State<Arc<ApiState>>) -> Result<StatusCode, Problem> {
    for group in &state.groups {
        group.ask_rebalance().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn set_draining(state: &ApiState, node: NodeId, is_draining: bool) -> Result<StatusCode, Problem> {
    for group in &state.groups {
        match group.propose(&Command::SetDraining { node, is_draining }).await? {
            Outcome::Done | Outcome::AlreadyApplied => {}
            Outcome::Rejected(rejection @ Rejection::UnknownNode(_)) => {
                return Err(Problem::new(ProblemKind::NotFound, rejection.to_string()));
            }
            Outcome::Rejected(rejection @ Rejection::NeedsUpgrade { .. }) => {
                return Err(Problem::new(ProblemKind::NotReady, rejection.to_string()));
            }
            other => return Err(Problem::new(ProblemKind::Undecided, format!("unexpected outcome {other:?}"))),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
