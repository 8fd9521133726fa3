//! Whether a node is being emptied. Survives its restarts, and is forgotten with the node.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn set_draining(&mut self, node: NodeId, is_draining: bool) -> Result<Outcome, Rejection> {
        if !self.roster.contains(node) {
            return Err(Rejection::UnknownNode(node));
        }
        let has_changed = self.roster.set_draining(node, is_draining);
        Ok(if has_changed { Outcome::Done } else { Outcome::AlreadyApplied })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::command::NodeRecord;
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn draining_survives_a_restart_of_the_node_and_ends_with_its_removal() {
        let record =
            NodeRecord { node: 2, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true };
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.set_draining(2, true), Err(Rejection::UnknownNode(2)));
        state.register_node(record.clone()).unwrap();
        assert_eq!(state.set_draining(2, true), Ok(Outcome::Done));
        assert_eq!(state.set_draining(2, true), Ok(Outcome::AlreadyApplied));
        state.register_node(record.clone()).unwrap();
        assert!(state.draining().contains(&2));
        state.remove_node(2).unwrap();
        state.register_node(record).unwrap();
        assert!(state.draining().is_empty());
    }
}
