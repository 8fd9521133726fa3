//! The command level of a node's build. Newer commands and snapshot formats wait until every node has their level.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn announce_level(&mut self, node: NodeId, level: u16) -> Result<Outcome, Rejection> {
        if !self.roster.contains(node) {
            return Err(Rejection::UnknownNode(node));
        }
        let has_changed = self.roster.set_level(node, level);
        Ok(if has_changed { Outcome::Done } else { Outcome::AlreadyApplied })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::command::NodeRecord;
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn the_last_announcement_counts_and_leaves_with_the_node() {
        let record =
            NodeRecord { node: 2, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true };
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.announce_level(2, 5), Err(Rejection::UnknownNode(2)));
        state.register_node(record.clone()).unwrap();
        assert_eq!(state.command_level(2), 1, "a node that announced nothing");
        assert_eq!(state.announce_level(2, 5), Ok(Outcome::Done));
        assert_eq!(state.announce_level(2, 5), Ok(Outcome::AlreadyApplied));
        assert_eq!((state.announce_level(2, 4), state.command_level(2)), (Ok(Outcome::Done), 4), "it was set back");
        state.remove_node(2).unwrap();
        state.register_node(record).unwrap();
        assert_eq!(state.command_level(2), 1);
    }
}
