//! Answers the requests of other nodes about this node's groups. [`crate::serving::peer_server`] receives the
//! requests over HTTP; a simulation receives them from its own network.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use openraft::raft::SnapshotResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::blocking;
use crate::group::group_core::GroupCore;
use crate::peers::messages::{self, FetchReply, FetchSnapshot, KnownOf, SnapshotPiece, SnapshotReply};
use crate::peers::snapshot_transfer::{IncomingSnapshots, Taken, read_piece};
use crate::peers::transport::PeerCall;
use crate::type_config::TypeConfig;
use clicktally_state::snapshot::SnapshotError;

/// Why a call was not carried out. The caller receives [`crate::peers::transport::TransportError::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The call is for another node or cluster: the address now belongs to another node, or is misconfigured.
    #[error("{0}")]
    Misdirected(String),
    #[error("no such group or call: {0}")]
    Unknown(String),
    #[error("cannot decode the request: {0}")]
    Malformed(String),
    #[error("{0}")]
    Stopped(String),
    #[error("the answer cannot be encoded: {0}")]
    Unanswerable(String),
}

/// The service that answers every call of a peer.
pub struct PeerService {
    cluster: String,
    node: NodeId,
    groups: BTreeMap<GroupId, ServedGroup>,
}

struct ServedGroup {
    core: Arc<GroupCore>,
    incoming: IncomingSnapshots,
}

impl PeerService {
    pub(crate) fn new(cluster: &str, node: NodeId, cores: &[Arc<GroupCore>]) -> PeerService {
        let served = |core: &Arc<GroupCore>| {
            let incoming = IncomingSnapshots::new(core.snapshots.clone());
            (core.id, ServedGroup { core: core.clone(), incoming })
        };
        PeerService { cluster: cluster.to_owned(), node, groups: cores.iter().map(served).collect() }
    }

    /// Checks that a call that names this cluster and node has reached the right node.
    pub(crate) fn check_address(&self, cluster: &str, node: NodeId) -> Result<(), Refusal> {
        if cluster == self.cluster && node == self.node {
            return Ok(());
        }
        let here = format!("this is node {} of cluster {}; check the peer addresses", self.node, self.cluster);
        Err(Refusal::Misdirected(here))
    }

    /// Carries out a call for `node`, which must be this node, and returns the encoded answer. May take as long as an
    /// fsync or the installation of a snapshot.
    pub async fn answer(&self, node: NodeId, group: GroupId, call: PeerCall, body: &[u8]) -> Result<Bytes, Refusal> {
        self.check_address(&self.cluster, node)?;
        let served = self.groups.get(&group).ok_or_else(|| Refusal::Unknown(format!("group {}", group.0)))?;
        served.answer(call, body).await
    }
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
                tracing::warn!(
                    group = self.core.id.0,
                    reason,
                    "received a damaged snapshot; nothing of it was applied"
                );
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
        match blocking::run(read).await.map_err(stopped)? {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) if self.core.metrics().last_applied.is_none_or(|last| last.index < at_least) => {
                Ok(FetchReply::NotYet)
            }
            Ok(None) => {
                self.core.raft.trigger().snapshot().await.map_err(stopped)?;
                Ok(FetchReply::NotYet)
            }
            // The snapshot was removed or has rotted. The peer's next request asks for the newest.
            Err(error) if name.is_some() => {
                tracing::debug!(%error, "cannot continue to read a snapshot");
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
        Ok(KnownOf { initialized, acknowledged, vote: metrics.vote })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    messages::decode(body).map_err(|e| Refusal::Malformed(e.to_string()))
}

fn reply<T: Serialize>(message: &T) -> Result<Bytes, Refusal> {
    messages::encode(message).map_err(|e| Refusal::Unanswerable(e.to_string()))
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped(error.to_string())
}
