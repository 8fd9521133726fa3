//! What each node carries, in the one unit that everything is weighed by: clicks a second.

use std::collections::BTreeMap;

use clicktally_proto::identity::ids::NodeId;

use crate::liveness::ShardLoad;

/// The cost of owning an idle shard, in clicks: its checkpoint a second takes about 1 ms of CPU over all replicas, as
/// much as a thousand clicks. With this cost, the number of shards decides where load does not.
pub const IDLE_SHARD_CLICKS_PER_S: u64 = 1_000;
/// A shard that lags is taken to need so much more: within this time it should have caught up.
const CATCH_UP_S: u64 = 10;
/// Loads are compared per thread, in thousandths of a click a second.
const SCALE: u64 = 1_000;
/// Above any shard's honest weight; a sum over all shards of the largest cluster stays far below `u64::MAX`.
const WEIGHT_MAX: u64 = 1_000_000_000;

/// What a shard costs its owner, in clicks a second; at least [`IDLE_SHARD_CLICKS_PER_S`].
pub fn weight(load: ShardLoad) -> u64 {
    let ShardLoad { clicks_per_s, lag_clicks } = load;
    clicks_per_s.saturating_add(lag_clicks / CATCH_UP_S).min(WEIGHT_MAX).saturating_add(IDLE_SHARD_CLICKS_PER_S)
}

/// The nodes that may be given shards.
#[derive(Debug, Clone)]
pub(super) struct NodeLoads(BTreeMap<NodeId, NodeLoad>);

#[derive(Debug, Clone, Copy)]
struct NodeLoad {
    threads: u64,
    clicks_per_s: u64,
}

impl NodeLoad {
    fn after(self, more: u64) -> u64 {
        self.clicks_per_s.saturating_add(more) * SCALE / self.threads
    }
}

impl NodeLoads {
    /// Nodes with their counting threads, carrying nothing yet.
    pub(super) fn new(nodes: Vec<(NodeId, u16)>) -> NodeLoads {
        let idle = |threads: u16| NodeLoad { threads: u64::from(threads.max(1)), clicks_per_s: 0 };
        NodeLoads(nodes.into_iter().map(|(node, threads)| (node, idle(threads))).collect())
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing for a node that is not one of them.
    pub(super) fn add(&mut self, node: NodeId, weight: u64) {
        if let Some(load) = self.0.get_mut(&node) {
            load.clicks_per_s = load.clicks_per_s.saturating_add(weight);
        }
    }

    pub(super) fn transfer(&mut self, from: NodeId, to: NodeId, weight: u64) {
        if let Some(load) = self.0.get_mut(&from) {
            load.clicks_per_s = load.clicks_per_s.saturating_sub(weight);
        }
        self.add(to, weight);
    }

    /// Who would carry least per thread with so much more; of equals the smallest id.
    pub(super) fn lightest_after(&self, weight: u64) -> Option<NodeId> {
        self.0.iter().min_by_key(|(node, load)| (load.after(weight), **node)).map(|(&node, _)| node)
    }

    /// Load per thread, scaled; the heaviest first.
    pub(super) fn heaviest_first(&self) -> Vec<(NodeId, u64)> {
        let mut loads: Vec<(NodeId, u64)> = self.0.iter().map(|(&node, load)| (node, load.after(0))).collect();
        loads.sort_by_key(|&(node, load)| (std::cmp::Reverse(load), node));
        loads
    }

    /// Load per thread of the two nodes, scaled, if so much went from one to the other.
    pub(super) fn after_move(&self, from: NodeId, to: NodeId, weight: u64) -> Option<(u64, u64)> {
        let (giver, taker) = (self.0.get(&from)?, self.0.get(&to)?);
        let left = NodeLoad { clicks_per_s: giver.clicks_per_s.saturating_sub(weight), ..*giver };
        Some((left.after(0), taker.after(weight)))
    }

    /// Mean load per thread of the whole cluster, scaled.
    pub(super) fn mean(&self) -> u64 {
        let threads: u64 = self.0.values().map(|load| load.threads).sum();
        let clicks: u64 = self.0.values().map(|load| load.clicks_per_s).sum();
        clicks.saturating_mul(SCALE) / threads.max(1)
    }
}
