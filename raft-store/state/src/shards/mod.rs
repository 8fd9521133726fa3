//! Who counts each shard, and how far its clicks are counted.

use clicktally_proto::checkpoint::{Epoch, OutcomeCounts};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::NodeId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    pub owner: Option<NodeId>,
    /// Whom the owner is asked to hand the shard to, once it has committed what it has read.
    pub heir: Option<NodeId>,
    /// The present owner was the heir of the one before.
    pub was_heir: bool,
    pub epoch: Epoch,
    /// The next offset to read: everything below is counted.
    pub committed_offset: u64,
    /// The offsets of the newest checkpoint that read anything, to recognise its retry.
    pub last_range: Option<(u64, u64)>,
    pub watermark_ms: UnixMillis,
    /// Everything that arrived before this is counted.
    pub complete_to_ms: UnixMillis,
    pub outcomes: OutcomeCounts,
}
