//! openraft's network over a [`PeerTransport`]: one [`Peer`] per (node, group), all sharing the transport's connections.

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

/// Deadline of an append that carries entries: the follower fsyncs before it answers. Far above openraft's own (three quarters
/// of a heartbeat), because giving up early only sends the same megabytes again.
const APPEND_DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of one snapshot piece but the last.
const PIECE_DEADLINE: Duration = Duration::from_secs(5);
/// The last piece is answered after the snapshot is decoded, fsynced and installed.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);
/// Pause before an unreachable peer is tried again: a restarted peer is caught up within this.
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

/// Puts a question to a peer and reads its answer.
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
    messages::decode(&answer).map_err(|e| unusable(format!("undecodable answer: {e}")))
}

fn rpc_error(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        // openraft retries a network error at once and backs off from an unreachable node; one that refuses will not change
        // its mind in a millisecond either.
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
    /// Any error has openraft start anew, with the snapshot that is the newest by then.
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
                    // Another transmission came between.
                    return Err(failed(format!("the peer wants byte {next} of {total} after byte {end}")));
                }
                SnapshotReply::Damaged(reason) => {
                    // Each piece arrived as it was sent, so it may have been so here: then the next try takes another.
                    let recheck = move || snapshots.recheck(name);
                    if let Ok(Err(error)) = blocking::run(recheck).await {
                        tracing::warn!(%error, "a snapshot that a peer found damaged cannot be checked");
                    }
                    return Err(failed(format!("the peer found the snapshot damaged: {reason}")));
                }
            }
        }
    }
}
