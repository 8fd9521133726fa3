//! `/v1/cluster/members`: nodes join and leave a running cluster.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use clicktally_proto::command::{Command, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::limits::NODE_ID_MAX;
use clicktally_raft_store::group::{Group, MemberError};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::problem::{Problem, ProblemKind};
use crate::request::body_bytes::BodyBytes;
use crate::request::path_text::PathText;
use crate::state::ApiState;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// An id that no other machine has ever used.
    pub node: NodeId,
    /// `host:port` of its peer interface.
    pub peer_address: String,
}

#[utoipa::path(
    post, path = "/v1/cluster/members", tag = "cluster", request_body = NewMember,
    responses(
        (status = 204, description = "The node votes in every group"),
        (status = 400, body = Problem),
        (status = 503, description = "Not decided in time; repeat it", body = Problem),
    )
)]
pub async fn add_member(State(state): State<Arc<ApiState>>, BodyBytes(body): BodyBytes) -> Result<StatusCode, Problem> {
    let member: NewMember = serde_json::from_slice(&body).map_err(|error| Problem::invalid(error.to_string()))?;
    if !(1..=NODE_ID_MAX).contains(&member.node) || !member.peer_address.contains(':') {
        let detail = format!("give a node id from 1 to {NODE_ID_MAX} and a peer_address as host:port");
        return Err(Problem::invalid(detail));
    }
    for group in &state.groups {
        group.add_member(member.node, &member.peer_address).await.map_err(|error| refused(&error))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    delete, path = "/v1/cluster/members/{node}", tag = "cluster", params(("node" = u64, Path)),
    responses(
        (status = 204, description = "The node is in no group, and its shards have other owners"),
        (status = 400, body = Problem),
        (status = 503, description = "Not decided in time; repeat it", body = Problem),
    )
)]
pub async fn remove_member(
    State(state): State<Arc<ApiState>>,
    PathText(node): PathText,
) -> Result<StatusCode, Problem> {
    let node = node_id(&node)?;
    for group in &state.groups {
        // Release its shards first, while it is still a member of the group.
        forget(group, node).await?;
        group.remove_member(node).await.map_err(|error| refused(&error))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Problem> {
    text.parse().map_err(|_| Problem::invalid(format!("'{text}' is not a node id")))
}

async fn forget(group: &Group, node: NodeId) -> Result<(), Problem> {
    match group.propose(&Command::RemoveNode(node)).await? {
        Outcome::Done | Outcome::Rejected(Rejection::UnknownNode(_)) => Ok(()),
        other => Err(Problem::new(ProblemKind::Undecided, format!("unexpected outcome {other:?}"))),
    }
}

fn refused(error: &MemberError) -> Problem {
    match error {
        MemberError::Reject(reason) => Problem::invalid(reason.clone()),
        MemberError::Retry(_) | MemberError::Halt(_) => Problem::new(ProblemKind::Undecided, error.to_string()),
    }
}
