//! Who lives, as the leader of a group has heard it. Volatile on purpose: a new leader must hear every node itself before it
//! may call one dead.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::ids::NodeId;
use serde::{Deserialize, Serialize};

/// Sent by every node to the leader of each group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub node: NodeId,
    /// Differs between two lives of a node.
    pub incarnation: u64,
    /// False while draining: owns shards still, is given no more.
    pub accepts_shards: bool,
}

/// A copy of the leader's table, with the age of each entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatView {
    /// How long this node has led the group without interruption; zero elsewhere.
    pub leading_for: Duration,
    pub nodes: BTreeMap<NodeId, HeardNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardNode {
    pub silent_for: Duration,
    pub heartbeat: Heartbeat,
}
