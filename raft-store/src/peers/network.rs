//! openraft's network over a [`PeerTransport`]. There is one [`Peer`] per node and group, and all of them share the
//! transport's connections.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::blocking;
use crate::peers::messages::{self, SnapshotReply};
use crate::peers::snapshot_transfer::OutgoingSnapshot;
use crate::peers::transport::{PeerCall, PeerTarget, PeerTransport, TransportError};
use crate::snapshots::snapshot_data::{Snapshot, SnapshotData};
use crate::type_config::{TypeConfig, Vote};

/// Deadline of an append that carries entries: the follower fsyncs before it answers. It is far above openraft's own
/// deadline (three quarters of a heartbeat), because an early timeout only sends the same megabytes again.
const APPEND_DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of each snapshot piece except the last.
const PIECE_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of the last piece. The peer answers it after it has decoded, fsynced and installed the snapshot.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);
/// Pause before the next call to an unreachable peer. A restarted peer hears from the leader within this time.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Makes a [`Peer`] for each member of a group.
pub(crate) struct PeerNetwork {
    pub(crate) group: GroupId,
    pub(crate) transport: Arc<dyn PeerTransport>,
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        Peer {
            target: PeerTarget { node: target, address: node.addr.clone(), group: self.group },
            transport: self.transport.clone(),
        }
    }
}

/// Another member of a group.
pub(crate) struct Peer {
    target: PeerTarget,
    transport: Arc<dyn PeerTransport>,
}

impl Peer {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: PeerCall,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        ask(self.transport.as_ref(), &self.target, call, question, deadline).await.map_err(rpc_error)
    }
}

/// Sends a request to a peer and decodes its answer.
pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
    transport: &dyn PeerTransport,
    target: &PeerTarget,
    call: PeerCall,
    question: &Q,
    deadline: Duration,
) -> Result<A, TransportError> {
    let unusable = |reason: String| TransportError::Refused(target.address.clone(), reason);
    let body = messages::encode(question).map_err(|e| unusable(e.to_string()))?;
    let answer = transport.call(target, call, body, deadline).await?;
    messages::decode(&answer).map_err(|e| unusable(format!("cannot decode the answer: {e}")))
}

fn rpc_error(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        // openraft retries a network error at once, and backs off from an unreachable node. A peer that refuses a
        // call will refuse it again a millisecond later, so back off from it too.
        TransportError::Unreachable(..) | TransportError::Refused(..) => Unreachable::new(&error).into(),
        TransportError::Lost(..) => NetworkError::new(&error).into(),
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if request.entries.is_empty() { option.soft_ttl() } else { APPEND_DEADLINE };
        self.ask(PeerCall::Append, &request, deadline).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(PeerCall::Vote, &request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(PeerCall::PreVote, &request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(PeerCall::TransferLeader, &request, option.soft_ttl()).await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_PAUSE)))
    }
}

impl Peer {
    /// Sends a snapshot in pieces. After any error openraft starts again with the then newest snapshot.
    async fn send_snapshot(
        &self,
        vote: Vote,
        Snapshot { meta, snapshot }: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let failed = |reason: String| -> RPCError<TypeConfig> { NetworkError::from_string(reason).into() };
        let SnapshotData::Stored(stored, snapshots) = snapshot else {
            return Err(failed("only a stored snapshot can be sent".to_owned()));
        };
        let (name, total) = (stored.name, stored.bytes);
        let mut outgoing = OutgoingSnapshot::new(vote, meta, stored);
        loop {
            let read = move || outgoing.next_piece().map(|piece| (outgoing, piece));
            let read = blocking::run(read).await;
            let (next, piece) = match read.map_err(io::Error::other).flatten() {
                Ok(read) => read,
                Err(error) => return Err(failed(format!("the snapshot cannot be read: {error}"))),
            };
            outgoing = next;
            let end = piece.offset + piece.bytes.len() as u64;
            let deadline = if end == total { INSTALL_DEADLINE } else { PIECE_DEADLINE };
            match self.ask(PeerCall::Snapshot, &piece, deadline).await? {
                SnapshotReply::Installed(response) => return Ok(response),
                SnapshotReply::Continue(next) if next == end && end < total && !piece.bytes.is_empty() => {}
                SnapshotReply::Continue(next) => {
                    // Another transfer has replaced this one at the peer.
                    return Err(failed(format!("the peer wants byte {next} of {total} after byte {end}")));
                }
                SnapshotReply::Damaged(reason) => {
                    // Each piece has a checksum and arrived as it was sent, so the snapshot may be damaged on this
                    // node. Then the recheck sets it aside, and the next try sends another one.
                    let recheck = move || snapshots.recheck(name);
                    if let Ok(Err(error)) = blocking::run(recheck).await {
                        tracing::warn!(%error, "cannot recheck a snapshot that a peer reports as damaged");
                    }
                    return Err(failed(format!("the peer reports that the snapshot is damaged: {reason}")));
                }
            }
        }
    }
}
