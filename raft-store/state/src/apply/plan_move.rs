//! A planned move: asks the owner of a shard to commit what it has read and to hand the shard over itself.
//!
//! The plan does not change which node may count. Only the assignment that follows it does, under a new epoch. So a
//! plan that is lost, repeated or cancelled costs nothing.

use clicktally_proto::command::{Outcome, PlanMove, Rejection};

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn plan_move(&mut self, plan: PlanMove) -> Result<Outcome, Rejection> {
        let PlanMove { shard, heir, expected_epoch } = plan;
        if let Some(node) = heir
            && !self.roster.can_aggregate(node)
        {
            return Err(Rejection::UnknownNode(node));
        }
        let entry = self.shards.get_mut(shard).ok_or(Rejection::ForeignShard(shard))?;
        if entry.epoch != expected_epoch {
            return Err(Rejection::EpochMoved(entry.epoch));
        }
        // A shard without an owner cannot be handed over, and an owner is not its own heir.
        let heir = heir.filter(|heir| entry.owner.is_some_and(|owner| owner != *heir));
        if entry.heir == heir {
            return Ok(Outcome::AlreadyApplied);
        }
        entry.heir = heir;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::checkpoint::Epoch;
    use clicktally_proto::command::{AssignShard, NodeRecord};
    use clicktally_proto::identity::ids::NodeId;
    use clicktally_proto::identity::shard_key::{GroupId, ShardId};

    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn state() -> GroupState {
        let mut state = GroupState::new(GroupId(0));
        for node in [1, 2] {
            let record =
                NodeRecord { node, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true };
            state.register_node(record).unwrap();
        }
        state.assign_shard(AssignShard { shard: SHARD, owner: Some(1), expected_epoch: Epoch(0) }).unwrap();
        state
    }

    fn plan(heir: Option<NodeId>) -> PlanMove {
        PlanMove { shard: SHARD, heir, expected_epoch: Epoch(1) }
    }

    #[test]
    fn a_plan_leaves_owner_and_epoch_alone_and_ends_with_the_assignment() {
        let mut state = state();
        assert_eq!(state.plan_move(plan(Some(2))), Ok(Outcome::Done));
        assert_eq!(state.plan_move(plan(Some(2))), Ok(Outcome::AlreadyApplied));
        let planned = state.shard(SHARD).unwrap();
        assert_eq!((planned.owner, planned.epoch, planned.heir), (Some(1), Epoch(1), Some(2)));
        state.assign_shard(AssignShard { shard: SHARD, owner: Some(2), expected_epoch: Epoch(1) }).unwrap();
        let inherited = state.shard(SHARD).unwrap();
        assert_eq!((inherited.owner, inherited.heir, inherited.was_heir), (Some(2), None, true));
        assert_eq!(state.plan_move(plan(Some(1))), Err(Rejection::EpochMoved(Epoch(2))));
    }

    #[test]
    fn only_another_known_node_can_be_an_heir() {
        let mut state = state();
        assert_eq!(state.plan_move(plan(Some(9))), Err(Rejection::UnknownNode(9)));
        assert_eq!(state.plan_move(plan(Some(1))), Ok(Outcome::AlreadyApplied));
        assert_eq!(state.shard(SHARD).unwrap().heir, None);
    }

    #[test]
    fn an_heir_that_is_removed_inherits_nothing() {
        let mut state = state();
        state.plan_move(plan(Some(2))).unwrap();
        state.remove_node(2).unwrap();
        assert_eq!(state.shard(SHARD).unwrap().heir, None);
    }
}
