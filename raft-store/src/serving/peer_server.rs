//! The peer interface: it serves [`PeerService`] over HTTP/2 on its own port, for members only.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;

use crate::peers::messages::PEER_BODY_BYTES_MAX;
use crate::peers::transport::PeerCall;
use crate::serving::peer_service::{PeerService, Refusal};

pub(crate) fn router(service: Arc<PeerService>) -> Router {
    Router::new()
        .route("/raft/{cluster}/{node}/{group}/{call}", post(answer))
        .layer(DefaultBodyLimit::max(PEER_BODY_BYTES_MAX))
        .with_state(service)
}

async fn answer(
    State(service): State<Arc<PeerService>>,
    Path((cluster, node, group, call)): Path<(String, NodeId, u16, String)>,
    body: Bytes,
) -> Result<Bytes, Refusal> {
    service.check_address(&cluster, node)?;
    let call = PeerCall::from_name(&call).ok_or_else(|| Refusal::Unknown(format!("call {call}")))?;
    service.answer(node, GroupId(group), call, &body).await
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Unanswerable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}
