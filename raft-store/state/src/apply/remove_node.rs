//! Forgets a node. Its shards lose their owner under a new epoch, so it can commit nothing any more.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn remove_node(&mut self, node: NodeId) -> Result<Outcome, Rejection> {
        if !self.roster.remove(node) {
            return Err(Rejection::UnknownNode(node));
        }
        self.shards.disown(node);
        Ok(Outcome::Done)
    }
}
