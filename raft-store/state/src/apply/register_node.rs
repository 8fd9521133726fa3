//! Adds a node, or replaces its record: each incarnation of a node writes its addresses again.

use clicktally_proto::command::{NodeRecord, Outcome, Rejection};

use crate::group_state::GroupState;
use crate::limits::NODES_MAX;

impl GroupState {
    pub(super) fn register_node(&mut self, record: NodeRecord) -> Result<Outcome, Rejection> {
        if record.node == 0 {
            return Err(Rejection::ZeroId);
        }
        if !self.roster.has_room_for(record.node) {
            return Err(Rejection::Limit(format!("{NODES_MAX} nodes")));
        }
        self.roster.register(record);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn a_group_takes_nodes_up_to_its_limit_and_known_ones_after_it() {
        let mut state = GroupState::new(GroupId(0));
        let record =
            |node| NodeRecord { node, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true };
        assert_eq!(state.register_node(record(0)), Err(Rejection::ZeroId));
        for node in 1..=NODES_MAX as u64 {
            assert_eq!(state.register_node(record(node)), Ok(Outcome::Done));
        }
        assert!(matches!(state.register_node(record(NODES_MAX as u64 + 1)), Err(Rejection::Limit(_))));
        assert_eq!(state.register_node(record(7)), Ok(Outcome::Done));
    }
}
