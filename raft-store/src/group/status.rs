//! One group as `cluster status` shows it.

use std::collections::BTreeMap;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use serde::{Deserialize, Serialize};

/// A group as this node knows it, for `cluster status`. All indexes are indexes of the group's log; `None` means
/// before the first entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    pub group: GroupId,
    pub node: NodeId,
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub role: String,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
    /// Size of this node's log on disk, for all groups together.
    pub log_bytes: u64,
    /// The peer address of each voter.
    pub voters: BTreeMap<NodeId, String>,
    pub learners: BTreeMap<NodeId, String>,
    /// On the leader: the index up to which each member has acknowledged the log.
    pub acknowledged: BTreeMap<NodeId, Option<u64>>,
    /// Milliseconds since this replica was last proven to hold every committed entry.
    pub stale_ms: Option<u64>,
}
