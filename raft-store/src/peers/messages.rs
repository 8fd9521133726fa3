//! What travels between nodes beside openraft's own messages. Each is one frame of the codec: version, checksum, bincode.
//! Additive like the commands: variants are appended, never reordered.

use bytes::Bytes;
use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::command::Outcome;
use clicktally_proto::identity::ids::NodeId;
use openraft::raft::SnapshotResponse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::storage::SnapshotName;
use crate::type_config::{SnapshotMeta, TypeConfig, Vote};

/// Bytes of a snapshot in one call, and with it what either end holds of one.
pub(crate) const SNAPSHOT_PIECE_BYTES: usize = 1024 * 1024;
/// The largest snapshot a member takes onto its disk.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// The largest body a peer accepts: several times what replication sends, and room for one large command.
pub(crate) const PEER_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One transmission of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferId {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// Tells it from others of the same leader.
    pub number: u64,
    pub total_bytes: u64,
}

/// `bytes[offset..]` of a snapshot. Pieces come in order; the one that completes `total_bytes` installs it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotPiece {
    pub id: TransferId,
    pub offset: u64,
    pub bytes: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SnapshotReply {
    /// Taken; go on at this offset (0 starts again).
    Continue(u64),
    Installed(SnapshotResponse<TypeConfig>),
    /// All of it came, and it is no snapshot: nothing of it was installed.
    Damaged(String),
}

/// A member that lost its snapshots asks for the newest that reaches to index `at_least`, from byte `offset` on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FetchSnapshot {
    pub at_least: u64,
    /// The one begun, from the second piece on.
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
    /// Ask again, from the beginning: it is being made, or this member has not come that far itself yet, or the one begun is gone.
    NotYet,
}

/// What only a group's leader can do. Any node may ask; it goes to the leader by [`crate::peers::transport::PeerCall::Lead`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum LeaderRequest {
    /// An encoded command, and [`clicktally_proto::command::Command::level`] of it.
    Propose {
        command: Bytes,
        level: u16,
    },
    /// Up to which index is everything committed, confirmed by a quorum?
    ReadIndex,
    /// Even out the load now, whatever little it gains.
    Rebalance,
    ChangeMembers(MemberChange),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LeaderAnswer {
    Outcome(Outcome),
    ReadIndex(u64),
    Accepted,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LeaderReply {
    Done(LeaderAnswer),
    /// Certainly not done; this node believes that one leads.
    NotLeader(Option<NodeId>),
    /// Perhaps done.
    Undecided(String),
    /// Certainly not done, and asking again will not help.
    Refused(String),
    /// The replica asked has stopped.
    Halted(String),
}

/// A change of the members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// As a learner first; as a voter once it has caught up.
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

/// A node that starts asks what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownOf {
    /// The group has members already: do not found it again.
    pub initialized: bool,
    /// Index up to which the asking node acknowledged entries, if a leader was asked: they must be in its log.
    pub acknowledged: Option<u64>,
    /// Of the node asked. Whole, because two nodes may lead in one term here, one after the other.
    pub vote: Vote,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, CodecError> {
    codec::encode(message).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    codec::decode(frame)
}
