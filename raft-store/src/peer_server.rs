//! The peer interface: answers what other nodes ask about the groups of this one. HTTP/2 on its own port, for members only.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use clicktally_proto::ids::NodeId;
use openraft::raft::SnapshotResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::group_core::GroupCore;
use crate::peer_messages::{
    self, FetchReply, FetchSnapshot, KnownOf, PEER_BODY_BYTES_MAX, SnapshotPiece, SnapshotReply,
};
use crate::peer_transport::PeerCall;
use crate::snapshot::SnapshotError;
use crate::snapshot_transfer::{IncomingSnapshots, Taken, read_piece};
use crate::type_config::TypeConfig;

type Refusal = (StatusCode, String);

/// Everything a peer may ask for.
pub(crate) struct PeerServer {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) groups: BTreeMap<u16, ServedGroup>,
}

pub(crate) struct ServedGroup {
    core: Arc<GroupCore>,
    incoming: IncomingSnapshots,
}

impl ServedGroup {
    pub(crate) fn new(core: Arc<GroupCore>) -> ServedGroup {
        let incoming = IncomingSnapshots::new(core.snapshots.clone());
        ServedGroup { core, incoming }
    }
}

pub(crate) fn router(server: Arc<PeerServer>) -> Router {
    Router::new()
        .route("/raft/{cluster}/{node}/{group}/{call}", post(answer))
        .layer(DefaultBodyLimit::max(PEER_BODY_BYTES_MAX))
        .with_state(server)
}

async fn answer(
    State(server): State<Arc<PeerServer>>,
    Path((cluster, node, group, call)): Path<(String, NodeId, u16, String)>,
    body: Bytes,
) -> Result<Bytes, Refusal> {
    if cluster != server.cluster || node != server.node {
        let here = format!("this is node {} of cluster {}; check the peer addresses", server.node, server.cluster);
        return Err((StatusCode::MISDIRECTED_REQUEST, here));
    }
    let group = server.groups.get(&group).ok_or((StatusCode::NOT_FOUND, format!("no group {group}")))?;
    let call = PeerCall::from_name(&call).ok_or((StatusCode::NOT_FOUND, format!("no call {call}")))?;
    group.answer(call, &body).await
}

impl ServedGroup {
    async fn answer(&self, call: PeerCall, body: &[u8]) -> Result<Bytes, Refusal> {
        let raft = &self.core.raft;
        match call {
            PeerCall::Append => reply(&raft.append_entries(read(body)?).await.map_err(stopped)?),
            PeerCall::Vote => reply(&raft.vote(read(body)?).await.map_err(stopped)?),
            PeerCall::PreVote => reply(&raft.pre_vote(read(body)?).await.map_err(stopped)?),
            PeerCall::TransferLeader => reply(&raft.handle_transfer_leader(read(body)?).await.map_err(stopped)?),
            PeerCall::Snapshot => reply(&self.receive_snapshot(read(body)?).await?),
            PeerCall::Lead => reply(&self.core.lead(&read(body)?).await),
            PeerCall::KnownOf => reply(&self.known_of(read(body)?).await?),
            PeerCall::FetchSnapshot => reply(&self.fetch_snapshot(read(body)?).await?),
            PeerCall::Heartbeat => {
                self.core.heartbeats.record(read(body)?, self.core.clock.monotonic());
                reply(&())
            }
        }
    }

    async fn receive_snapshot(&self, piece: SnapshotPiece) -> Result<SnapshotReply, Refusal> {
        let (vote, snapshot) = match self.incoming.take(piece).await.map_err(stopped)? {
            Taken::Whole(vote, snapshot) => (vote, snapshot),
            Taken::Continue(at) => return Ok(SnapshotReply::Continue(at)),
            Taken::Damaged(reason) => {
                tracing::warn!(group = self.core.id.0, reason, "a snapshot arrived damaged: nothing of it is applied");
                return Ok(SnapshotReply::Damaged(reason));
            }
        };
        let response: SnapshotResponse<TypeConfig> =
            self.core.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(SnapshotReply::Installed(response))
    }

    async fn fetch_snapshot(
        &self,
        FetchSnapshot { at_least, name, offset }: FetchSnapshot,
    ) -> Result<FetchReply, Refusal> {
        let snapshots = self.core.snapshots.clone();
        let read = move || -> Result<Option<FetchReply>, SnapshotError> {
            let stored = match name {
                Some(name) => Some(snapshots.open(name)?),
                None => snapshots.newest()?.filter(|stored| stored.name.index >= at_least),
            };
            let Some(mut stored) = stored else { return Ok(None) };
            let bytes = read_piece(&mut stored, offset)?;
            Ok(Some(FetchReply::Piece { name: stored.name, total_bytes: stored.bytes, bytes }))
        };
        match tokio::task::spawn_blocking(read).await.map_err(stopped)? {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) if self.core.metrics().last_applied.is_none_or(|last| last.index < at_least) => {
                Ok(FetchReply::NotYet)
            }
            Ok(None) => {
                self.core.raft.trigger().snapshot().await.map_err(stopped)?;
                Ok(FetchReply::NotYet)
            }
            // Removed meanwhile, or rotten: the next question is for the newest.
            Err(error) if name.is_some() => {
                tracing::debug!(%error, "a snapshot cannot be read on");
                Ok(FetchReply::NotYet)
            }
            Err(error) => Err(stopped(error)),
        }
    }

    async fn known_of(&self, node: NodeId) -> Result<KnownOf, Refusal> {
        let initialized = self.core.raft.is_initialized().await.map_err(stopped)?;
        let metrics = self.core.metrics();
        let acknowledged = metrics.replication.and_then(|all| all.get(&node).copied().flatten());
        let acknowledged = acknowledged.map(|log_id| log_id.index);
        Ok(KnownOf { initialized, acknowledged, term: metrics.current_term })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    peer_messages::decode(body).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))
}

fn reply<T: Serialize>(message: &T) -> Result<Bytes, Refusal> {
    peer_messages::encode(message).map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
