//! Gives an incarnation of a node a Snowflake worker id.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::ids::NodeId;

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn lease_worker(&mut self, node: NodeId, incarnation: u64) -> Result<Outcome, Rejection> {
        let worker = self.roster.workers().lease(node, incarnation).ok_or(Rejection::NoWorkerLeft)?;
        Ok(Outcome::WorkerLeased { worker })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::ids::WORKERS_MAX;
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn ids_run_out_with_a_clear_answer() {
        let mut state = GroupState::new(GroupId(0));
        for node in 1..=u64::from(WORKERS_MAX) {
            state.lease_worker(node, 0).unwrap();
        }
        assert_eq!(state.lease_worker(5_000, 0), Err(Rejection::NoWorkerLeft));
    }
}
