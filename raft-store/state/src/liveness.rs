//! What nodes report in their heartbeats: the facts that placement and leadership judge by. The table that receives
//! heartbeats, and the clock it needs, are in `raft-store/src/peers/heartbeats.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use serde::{Deserialize, Serialize};

/// Sent by every node to every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub node: NodeId,
    /// Differs between two lives of a node.
    pub incarnation: u64,
    /// Whether it counts shards at all.
    pub accepts_shards: bool,
    /// It is stopping in order: what it owns and leads is to go at once.
    pub is_leaving: bool,
    /// Counting threads: what its load is weighed against. At least 1.
    pub threads: u16,
    /// The loads of the shards that it has owned long enough to measure.
    pub loads: Vec<(ShardId, ShardLoad)>,
}

/// What a shard costs its owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLoad {
    /// Clicks read a second, smoothed over some seconds.
    pub clicks_per_s: u64,
    /// Clicks that wait in the log, estimated from the records that do.
    pub lag_clicks: u64,
}

/// A copy of the table, with the age of each entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatView {
    /// How long this node has listened without interruption.
    pub listening_for: Duration,
    pub nodes: BTreeMap<NodeId, HeardNode>,
    /// What each shard's present or last owner said of it.
    pub loads: BTreeMap<ShardId, ShardLoad>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardNode {
    pub silent_for: Duration,
    pub heartbeat: Heartbeat,
}

impl HeartbeatView {
    /// The nodes heard within `lease`.
    pub fn live(&self, lease: Duration) -> impl Iterator<Item = (NodeId, &Heartbeat)> {
        self.nodes
            .iter()
            .filter(move |(_, heard)| heard.silent_for < lease)
            .map(|(&node, heard)| (node, &heard.heartbeat))
    }

    /// Whether a node's silence for `lease` would mean anything.
    pub fn has_listened(&self, lease: Duration) -> bool {
        self.listening_for >= lease
    }
}
