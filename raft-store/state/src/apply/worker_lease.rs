//! Snowflake worker ids: one for each life of each node, so that two processes can never mint the same click id.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::ids::{NodeId, WORKERS_MAX};

use crate::group_state::GroupState;

impl GroupState {
    /// A new life of a node gets a new id, the farthest from reuse: its wall clock may have stepped back since the
    /// last one.
    pub(super) fn lease_worker(&mut self, node: NodeId, incarnation: u64) -> Result<Outcome, Rejection> {
        let held = self.workers.held.iter().find(|(_, holder)| **holder == (node, incarnation));
        if let Some((&worker, _)) = held {
            return Ok(Outcome::WorkerLeased { worker });
        }
        let candidates = (0..WORKERS_MAX).map(|step| (self.workers.next + step) % WORKERS_MAX);
        let worker =
            candidates.into_iter().find(|id| !self.workers.held.contains_key(id)).ok_or(Rejection::NoWorkerLeft)?;
        self.workers.held.retain(|_, (holder, _)| *holder != node);
        self.workers.held.insert(worker, (node, incarnation));
        self.workers.next = (worker + 1) % WORKERS_MAX;
        Ok(Outcome::WorkerLeased { worker })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn two_lives_never_share_a_worker_id_and_a_retry_gets_the_same() {
        let mut state = GroupState::new(GroupId(0));
        let first = state.lease_worker(1, 100).unwrap();
        assert_eq!(state.lease_worker(1, 100).unwrap(), first);
        let second = state.lease_worker(1, 101).unwrap();
        let other = state.lease_worker(2, 100).unwrap();
        assert!(first != second && second != other && first != other);
    }

    #[test]
    fn ids_run_out_with_a_clear_answer() {
        let mut state = GroupState::new(GroupId(0));
        for node in 1..=u64::from(WORKERS_MAX) {
            state.lease_worker(node, 0).unwrap();
        }
        assert_eq!(state.lease_worker(5_000, 0), Err(Rejection::NoWorkerLeft));
    }
}
