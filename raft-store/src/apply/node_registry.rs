//! Which nodes there are. Liveness is not here: it needs a clock, and apply has none.

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::command::{NodeRecord, Outcome, Rejection};
use clicktally_proto::ids::NodeId;

use crate::state::{GroupState, NODES_MAX};

impl GroupState {
    pub(super) fn register_node(&mut self, record: NodeRecord) -> Result<Outcome, Rejection> {
        if record.node == 0 {
            return Err(Rejection::ZeroId);
        }
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&record.node) {
            return Err(Rejection::Limit(format!("{NODES_MAX} nodes")));
        }
        self.nodes.insert(record.node, record);
        Ok(Outcome::Done)
    }

    pub(super) fn remove_node(&mut self, node: NodeId) -> Result<Outcome, Rejection> {
        self.nodes.remove(&node).ok_or(Rejection::UnknownNode(node))?;
        for entry in self.shards.values_mut().filter(|entry| entry.owner == Some(node)) {
            entry.owner = None;
            entry.epoch = Epoch(entry.epoch.0 + 1);
        }
        self.workers.held.retain(|_, (holder, _)| *holder != node);
        Ok(Outcome::Done)
    }
}
