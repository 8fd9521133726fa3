//! The messages between nodes in addition to openraft's own. Each message is one frame of the codec: version,
//! checksum, bincode. The messages are additive like the commands: append variants, never reorder them.

use bytes::Bytes;
use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::command::Outcome;
use clicktally_proto::identity::ids::NodeId;
use openraft::raft::SnapshotResponse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::storage::SnapshotName;
use crate::type_config::{LogId, SnapshotMeta, TypeConfig, Vote};

/// Bytes of a snapshot in one call. The sender and the receiver each hold at most this much of a snapshot in memory.
pub(crate) const SNAPSHOT_PIECE_BYTES: usize = 1024 * 1024;
/// The largest snapshot that a member accepts onto its disk.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// The largest body that a peer accepts: several times the size of a replication call, with room for one large
/// command.
pub(crate) const PEER_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Identifies one transfer of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferId {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// Distinguishes transfers by the same leader.
    pub number: u64,
    pub total_bytes: u64,
}

/// The bytes of a snapshot from `offset` on. Pieces come in order. The piece that completes `total_bytes` installs
/// the snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotPiece {
    pub id: TransferId,
    pub offset: u64,
    pub bytes: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SnapshotReply {
    /// The piece was accepted; continue at this offset. 0 restarts the transfer.
    Continue(u64),
    Installed(SnapshotResponse<TypeConfig>),
    /// All pieces arrived, but they are not a valid snapshot. The receiver installed nothing.
    Damaged(String),
}

/// Sent by a member that lost its snapshots. It asks for the newest snapshot that reaches at least index `at_least`,
/// from byte `offset` on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FetchSnapshot {
    pub at_least: u64,
    /// The snapshot whose transfer has begun; set from the second piece on.
    pub name: Option<SnapshotName>,
    pub offset: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FetchReply {
    Piece {
        name: SnapshotName,
        total_bytes: u64,
        bytes: Bytes,
    },
    /// Ask again from the beginning. The peer is still building a snapshot, has not applied enough entries yet, or
    /// has deleted the snapshot whose transfer had begun.
    NotYet,
}

/// A request that only a group's leader can carry out. Any node may send it;
/// [`crate::peers::transport::PeerCall::Lead`] takes it to the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum LeaderRequest {
    /// An encoded command and its [`clicktally_proto::command::Command::level`].
    Propose { command: Bytes, level: u16 },
    /// Asks for the committed index, confirmed by a quorum.
    ReadIndex,
    /// Asks the leader to rebalance the load now, even if the gain is small.
    Rebalance,
    /// A change by an older build, without a condition, or a transfer of leadership.
    ChangeMembers(MemberChange),
    /// Asks for the entry that holds the present members.
    MembersEntry,
    /// Changes the members if `seen` still holds them.
    ChangeMembersIf { change: MemberChange, seen: MembersSeen },
}

/// The entry that held the members when a caller decided to change them.
///
/// A request may arrive after its caller has stopped waiting. Without this condition, a late removal would remove a
/// node that was added back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersSeen(pub(crate) Option<LogId>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderAnswer {
    Outcome(Outcome),
    ReadIndex(u64),
    Accepted,
    MembersEntry(MembersSeen),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LeaderReply {
    Done(LeaderAnswer),
    /// The request was certainly not carried out. The field is the node that the answering node believes to be the
    /// leader.
    NotLeader(Option<NodeId>),
    /// The request may or may not have been carried out.
    Undecided(String),
    /// The request was certainly not carried out, and a retry will not help.
    Refused(String),
    /// The replica that was asked has stopped.
    Halted(String),
}

/// A change of the members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// Adds the node as a learner, and as a voter once it has caught up.
    Add {
        node: NodeId,
        address: String,
    },
    Remove {
        node: NodeId,
    },
    TransferLeader {
        to: NodeId,
    },
}

/// What a peer knows of a starting node that asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownOf {
    /// The group already has members, so the starting node must not bootstrap it again.
    pub initialized: bool,
    /// The index up to which the starting node has certainly acknowledged entries. Its log must hold them. The leader
    /// knows it exactly.
    pub acknowledged: Option<u64>,
    /// The vote of the answering node. It is the complete vote, because in this openraft mode two nodes may lead in
    /// one term, one after the other.
    pub vote: Vote,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, CodecError> {
    codec::encode(message).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    codec::decode(frame)
}
