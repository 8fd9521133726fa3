//! Answers the requests of other nodes about this node's groups. [`crate::serving::peer_server`] receives the
//! requests over HTTP; a simulation receives them from its own network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use openraft::raft::SnapshotResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::timeout;

use crate::blocking;
use crate::group::group_core::GroupCore;
use crate::peers::messages::{self, FetchReply, FetchSnapshot, KnownOf, SnapshotPiece, SnapshotReply};
use crate::peers::snapshot_transfer::{IncomingSnapshots, Taken, read_piece};
use crate::peers::transport::PeerCall;
use crate::type_config::TypeConfig;
use clicktally_state::snapshot::SnapshotError;

/// The entry with the first members, which every node holds that has taken part.
const FIRST_INDEX: u64 = 1;
/// Well below the time that a starting node waits for the answer.
const CONFIRM_DEADLINE: Duration = Duration::from_millis(500);

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
            PeerCall::Lead => reply(&self.core.lead_for_peer(&read(body)?).await),
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
        let mut acknowledged = acknowledged.map(|log_id| log_id.index);
        if acknowledged.is_none() && self.has_taken_part(node).await {
            acknowledged = Some(FIRST_INDEX);
        }
        Ok(KnownOf { initialized, acknowledged, vote: metrics.vote })
    }

    /// Whether the node votes, and has registered itself: then its log has held entries. Any replica knows that, also
    /// while there is no leader to remember which entries they were.
    async fn has_taken_part(&self, node: NodeId) -> bool {
        let seems_so = || {
            let is_voter = self.core.raft.voter_ids().any(|voter| voter == node);
            is_voter && self.core.replica.read(|state| state.nodes().contains_key(&node))
        };
        if !seems_so() {
            return false;
        }
        // The node may have been removed, and this replica may not know it yet.
        let _ = timeout(CONFIRM_DEADLINE, self.core.confirm_fresh()).await;
        seems_so()
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

#[cfg(test)]
mod tests {
    use clicktally_proto::clock::SystemClock;
    use clicktally_proto::codec;
    use clicktally_proto::command::{COMMAND_LEVEL, Command, Outcome};
    use tokio::net::TcpListener;

    use super::*;
    use crate::disk_storage::DiskStorage;
    use crate::peers::messages::{LeaderAnswer, LeaderReply, LeaderRequest};
    use crate::peers::transport::HttpTransport;
    use crate::store::RaftStore;
    use crate::store_config::{RaftTiming, SnapshotRules, StoreConfig};

    /// A frame that no build can read is taken for a command of a newer build. Once committed, it stops every replica.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_frame_that_cannot_be_read_is_not_proposed_for_a_peer() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = StoreConfig {
            cluster: "peers".to_owned(),
            node: 1,
            groups: 1,
            founders: BTreeMap::from([(1, listener.local_addr().unwrap().to_string())]),
            timing: RaftTiming::default(),
            snapshots: SnapshotRules::default(),
            heartbeat_gap_max: Duration::from_secs(1),
            command_level: COMMAND_LEVEL,
        };
        let transport = Arc::new(HttpTransport::new("peers").unwrap());
        let storage = Arc::new(DiskStorage::new(folder.path()));
        let store = RaftStore::open(config, storage, transport, Arc::new(SystemClock)).await.unwrap();
        let service = store.peer_service();
        let propose = async |frame: Vec<u8>, level| {
            let request = LeaderRequest::Propose { command: frame.into(), level };
            let body = messages::encode(&request).unwrap();
            read::<LeaderReply>(&service.answer(1, GroupId(0), PeerCall::Lead, &body).await.unwrap()).unwrap()
        };
        let lease = Command::LeaseWorker { node: 1, incarnation: 1 };
        let readable = codec::encode(&lease).unwrap();
        let answered = async || {
            loop {
                // Until the node leads.
                if let LeaderReply::Done(LeaderAnswer::Outcome(outcome)) =
                    propose(readable.clone(), lease.level()).await
                {
                    return outcome;
                }
            }
        };
        let before = answered().await;
        assert!(matches!(before, Outcome::WorkerLeased { .. }), "{before:?}");
        let of_no_build = codec::encode(&(99_u32, 7_u64)).unwrap();
        for frame in [of_no_build, b"garbage".to_vec(), Vec::new()] {
            let reply = propose(frame, COMMAND_LEVEL).await;
            assert!(matches!(&reply, LeaderReply::Refused(reason) if reason.contains("cannot be read")), "{reply:?}");
        }
        assert_eq!(answered().await, before, "the replica goes on");
        store.shutdown().await;
    }
}
