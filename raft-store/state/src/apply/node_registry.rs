//! Which nodes there are. Liveness is not here: it needs a clock, and apply has none.

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::command::{NodeRecord, Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use crate::group_state::GroupState;
use crate::limits::NODES_MAX;

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
        self.draining.remove(&node);
        self.levels.remove(&node);
        for entry in self.shards.values_mut() {
            if entry.heir == Some(node) {
                entry.heir = None;
            }
            if entry.owner == Some(node) {
                entry.owner = None;
                entry.heir = None;
                entry.epoch = Epoch(entry.epoch.0 + 1);
            }
        }
        self.workers.held.retain(|_, (holder, _)| *holder != node);
        Ok(Outcome::Done)
    }

    pub(super) fn announce_level(&mut self, node: NodeId, level: u16) -> Result<Outcome, Rejection> {
        if !self.nodes.contains_key(&node) {
            return Err(Rejection::UnknownNode(node));
        }
        let before = self.levels.insert(node, level);
        Ok(if before == Some(level) { Outcome::AlreadyApplied } else { Outcome::Done })
    }

    /// Whether a node is being emptied. Survives its restarts; forgotten with the node.
    pub(super) fn set_draining(&mut self, node: NodeId, is_draining: bool) -> Result<Outcome, Rejection> {
        if !self.nodes.contains_key(&node) {
            return Err(Rejection::UnknownNode(node));
        }
        let has_changed = if is_draining { self.draining.insert(node) } else { self.draining.remove(&node) };
        Ok(if has_changed { Outcome::Done } else { Outcome::AlreadyApplied })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    fn record(node: NodeId) -> NodeRecord {
        NodeRecord { node, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true }
    }

    #[test]
    fn draining_survives_a_restart_of_the_node_and_ends_with_its_removal() {
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.set_draining(2, true), Err(Rejection::UnknownNode(2)));
        state.register_node(record(2)).unwrap();
        assert_eq!(state.set_draining(2, true), Ok(Outcome::Done));
        assert_eq!(state.set_draining(2, true), Ok(Outcome::AlreadyApplied));
        state.register_node(record(2)).unwrap();
        assert!(state.draining().contains(&2));
        state.remove_node(2).unwrap();
        state.register_node(record(2)).unwrap();
        assert!(state.draining().is_empty());
    }

    #[test]
    fn a_level_is_the_latest_word_of_a_node_and_leaves_with_it() {
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.announce_level(2, 5), Err(Rejection::UnknownNode(2)));
        state.register_node(record(2)).unwrap();
        assert_eq!(state.command_level(2), 1, "until it says more");
        assert_eq!(state.announce_level(2, 5), Ok(Outcome::Done));
        assert_eq!(state.announce_level(2, 5), Ok(Outcome::AlreadyApplied));
        assert_eq!((state.announce_level(2, 4), state.command_level(2)), (Ok(Outcome::Done), 4), "it was set back");
        state.remove_node(2).unwrap();
        state.register_node(record(2)).unwrap();
        assert_eq!(state.command_level(2), 1);
    }
}
