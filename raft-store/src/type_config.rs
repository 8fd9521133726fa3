//! The types that openraft needs from us: a log entry, a node, an answer. Code outside this crate sees none of them.

use std::fmt;

use bytes::Bytes;
use clicktally_proto::command::Outcome;
use clicktally_proto::identity::ids::NodeId;
use serde::{Deserialize, Serialize};

/// An encoded [`clicktally_proto::command::Command`]. It is opaque on purpose: the proposer encodes it once, and only
/// apply decodes it. So the log, the network and a follower's disk never decode its contents.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandBytes(pub(crate) Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    /// The one instance of openraft's type parameters.
    pub(crate) TypeConfig:
        D = CommandBytes,
        R = Outcome,
        NodeId = NodeId,
        Node = openraft::BasicNode,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
