//! Stage two: the one writer of [`GroupState`], one file per command.
//!
//! Promises: total and deterministic. No clock, randomness, floats, hash order or I/O; bad input is a committed rejection that
//! changes nothing, never a panic, because a poisonous entry would stop every replica at each restart.

mod assign_shard;
mod checkpoint;
mod finalise_window;
mod node_registry;
mod plan_move;
mod set_campaign;
mod worker_lease;

use clicktally_proto::codec;
use clicktally_proto::command::{Command, GroupSettings, Outcome, Rejection};

use crate::state::GroupState;

impl GroupState {
    /// Applies the entry at log index `index`. `command` is opaque to Raft: encoded once by its proposer, decoded only here.
    pub fn apply(&mut self, index: u64, command: &[u8]) -> Outcome {
        let command = match codec::decode::<Command>(command) {
            Ok(command) => command,
            Err(error) => return Outcome::Rejected(Rejection::Undecodable(error.to_string())),
        };
        let outcome = match command {
            Command::Configure(settings) => self.configure(settings),
            Command::RegisterNode(record) => self.register_node(record),
            Command::RemoveNode(node) => self.remove_node(node),
            Command::AssignShard(assignment) => self.assign_shard(assignment),
            Command::Checkpoint(checkpoint) => self.apply_checkpoint(index, checkpoint),
            Command::SetCampaign(terms) => self.set_campaign(index, terms),
            Command::SinkProgress { published_revision } => self.sink_progress(published_revision),
            Command::LeaseWorker { node, incarnation } => self.lease_worker(node, incarnation),
            Command::PlanMove(plan) => self.plan_move(plan),
            Command::SetDraining { node, is_draining } => self.set_draining(node, is_draining),
        };
        outcome.unwrap_or_else(Outcome::Rejected)
    }

    fn configure(&mut self, settings: GroupSettings) -> Result<Outcome, Rejection> {
        match self.settings {
            None => {
                self.settings = Some(settings);
                Ok(Outcome::Done)
            }
            // The budget may be raised, the only way out where live windows alone are larger; nodes told different ones agree on
            // the largest.
            Some(current) => {
                let state_bytes_max = current.state_bytes_max.max(settings.state_bytes_max);
                let raised = GroupSettings { state_bytes_max, ..current };
                if (GroupSettings { state_bytes_max, ..settings }) != raised {
                    return Err(Rejection::SettingsDiffer);
                }
                self.settings = Some(raised);
                Ok(if raised == current { Outcome::AlreadyApplied } else { Outcome::Done })
            }
        }
    }

    fn sink_progress(&mut self, published_revision: u64) -> Result<Outcome, Rejection> {
        // Two sinks may overlap for a moment after a change of leaders; the topic holds whatever either of them reports.
        let reported = published_revision.min(self.newest_revision);
        if reported <= self.published_revision {
            return Ok(Outcome::AlreadyApplied);
        }
        self.published_revision = reported;
        self.evict_windows();
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_a_committed_rejection_and_changes_nothing() {
        let mut state = GroupState::new(clicktally_proto::shard_key::GroupId(0));
        let before = state.clone();
        for garbage in [&b""[..], b"\x01", b"\xff\xff\xff\xff\xff\xff", &[1, 0, 0, 0, 0, 7, 7]] {
            assert!(matches!(state.apply(1, garbage), Outcome::Rejected(Rejection::Undecodable(_))));
        }
        assert_eq!(state, before);
    }
}
