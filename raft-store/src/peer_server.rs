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
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::group_core::GroupCore;
use crate::peer_messages::{self, KnownOf, PEER_BODY_BYTES_MAX, SNAPSHOT_BYTES_MAX, SnapshotChunk, SnapshotReply};
use crate::peer_transport::PeerCall;
use crate::type_config::{Snapshot, SnapshotMeta, TypeConfig, Vote};

type Refusal = (StatusCode, String);

/// Everything a peer may ask for.
pub(crate) struct PeerServer {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) groups: BTreeMap<u16, ServedGroup>,
}

pub(crate) struct ServedGroup {
    core: Arc<GroupCore>,
    /// The one snapshot being received; another one takes its place.
    incoming: Mutex<Option<IncomingSnapshot>>,
}

struct IncomingSnapshot {
    vote: Vote,
    meta: SnapshotMeta,
    total: usize,
    bytes: Vec<u8>,
}

impl ServedGroup {
    pub(crate) fn new(core: Arc<GroupCore>) -> ServedGroup {
        ServedGroup { core, incoming: Mutex::new(None) }
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
            PeerCall::Heartbeat => {
                self.core.heartbeats.record(read(body)?, self.core.clock.monotonic());
                reply(&())
            }
        }
    }

    async fn receive_snapshot(&self, chunk: SnapshotChunk) -> Result<SnapshotReply, Refusal> {
        let Some((vote, snapshot)) = self.collect(chunk)? else {
            let collected = self.incoming.lock().as_ref().map_or(0, |incoming| incoming.bytes.len());
            return Ok(SnapshotReply::Continue(collected as u64));
        };
        let response: SnapshotResponse<TypeConfig> =
            self.core.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(SnapshotReply::Installed(response))
    }

    /// Adds a chunk; returns the snapshot when it is whole. A chunk that does not continue what is there changes nothing.
    fn collect(&self, chunk: SnapshotChunk) -> Result<Option<(Vote, Snapshot)>, Refusal> {
        let too_large =
            || (StatusCode::PAYLOAD_TOO_LARGE, format!("snapshots have {SNAPSHOT_BYTES_MAX} bytes at most"));
        let total = usize::try_from(chunk.total_bytes).map_err(|_| too_large())?;
        if total > SNAPSHOT_BYTES_MAX {
            return Err(too_large());
        }
        let mut slot = self.incoming.lock();
        if chunk.offset == 0 {
            *slot = Some(IncomingSnapshot { vote: chunk.vote, meta: chunk.meta.clone(), total, bytes: Vec::new() });
        }
        let Some(incoming) = slot.as_mut() else { return Ok(None) };
        let continues = incoming.vote == chunk.vote
            && incoming.meta == chunk.meta
            && incoming.total == total
            && incoming.bytes.len() as u64 == chunk.offset
            && incoming.bytes.len() + chunk.bytes.len() <= total;
        if !continues {
            return Ok(None);
        }
        incoming.bytes.extend_from_slice(&chunk.bytes);
        if incoming.bytes.len() < total {
            return Ok(None);
        }
        let whole = slot.take();
        Ok(whole
            .map(|incoming| (incoming.vote, Snapshot { meta: incoming.meta, snapshot: Bytes::from(incoming.bytes) })))
    }

    async fn known_of(&self, node: NodeId) -> Result<KnownOf, Refusal> {
        let initialized = self.core.raft.is_initialized().await.map_err(stopped)?;
        let metrics = self.core.metrics();
        let acknowledged = metrics.replication.and_then(|all| all.get(&node).copied().flatten());
        Ok(KnownOf { initialized, acknowledged: acknowledged.map(|log_id| log_id.index) })
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
