//! Ownership: who may count a shard, under which epoch.

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::command::{AssignShard, Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn assign_shard(&mut self, assignment: AssignShard) -> Result<Outcome, Rejection> {
        let AssignShard { shard, owner, expected_epoch } = assignment;
        if let Some(node) = owner
            && !self.roster.can_aggregate(node)
        {
            return Err(Rejection::UnknownNode(node));
        }
        let entry = self.shards.get_mut(shard).ok_or(Rejection::ForeignShard(shard))?;
        if entry.epoch != expected_epoch && !is_broken(Mutant::MoveEpochUnchecked) {
            return Err(Rejection::EpochMoved(entry.epoch));
        }
        entry.owner = owner;
        entry.was_heir = owner.is_some() && entry.heir == owner;
        entry.heir = None;
        entry.epoch = Epoch(expected_epoch.0 + 1);
        Ok(Outcome::Assigned { epoch: entry.epoch })
    }
}
