//! Stage two: the one writer of [`GroupState`], one file per command.
//!
//! Promises: deterministic. No clock, randomness, floats, hash order or I/O; bad input is a committed rejection that
//! changes nothing, never a panic, because a poisonous entry would stop every replica at each restart. The one thing
//! that does stop a replica is a command of a newer build, which others apply: a rejection here would be another
//! state than theirs.

mod assign_shard;
mod checkpoint;
mod finalise_window;
mod node_registry;
mod plan_move;
mod set_campaign;
mod worker_lease;

use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::command::{Command, GroupSettings, Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};
use thiserror::Error;

use crate::group_state::GroupState;

/// A command of a newer build. The replica has applied everything before it, and must stop here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("entry {index} is of a newer build ({what}; this one applies commands up to level {level}): upgrade this node")]
pub struct NewerCommand {
    pub index: u64,
    pub level: u16,
    pub what: String,
}

impl GroupState {
    /// Applies the entry at log index `index` with a build of this command `level`. `command` is opaque to Raft:
    /// encoded once by its proposer, decoded only here.
    pub fn apply(&mut self, index: u64, command: &[u8], level: u16) -> Result<Outcome, NewerCommand> {
        match codec::decode::<Command>(command) {
            Ok(command) if command.level() <= level => Ok(self.apply_command(index, command)),
            Ok(_) if is_broken(Mutant::NewerRejected) => {
                Ok(Outcome::Rejected(Rejection::Undecodable("a command of a newer build".to_owned())))
            }
            Ok(command) => Err(NewerCommand { index, level, what: format!("a command of level {}", command.level()) }),
            // Whole, or it would have been told from its checksum: it means something, to others.
            Err(error @ (CodecError::Version(_) | CodecError::Payload(_))) => {
                Err(NewerCommand { index, level, what: error.to_string() })
            }
            Err(error) => Ok(Outcome::Rejected(Rejection::Undecodable(error.to_string()))),
        }
    }

    fn apply_command(&mut self, index: u64, command: Command) -> Outcome {
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
            Command::AnnounceLevel { node, level } => self.announce_level(node, level),
        };
        // Only in the tests of this crate: the check takes far longer than the apply.
        #[cfg(test)]
        self.check().unwrap_or_else(|broken| panic!("entry {index} broke the state: {broken}"));
        outcome.unwrap_or_else(Outcome::Rejected)
    }

    fn configure(&mut self, settings: GroupSettings) -> Result<Outcome, Rejection> {
        match self.settings {
            None => {
                self.settings = Some(settings);
                Ok(Outcome::Done)
            }
            // The budget may be raised, the only way out where live windows alone are larger; nodes told different
            // ones agree on the largest.
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
        // Two sinks may overlap for a moment after a change of leaders; the topic holds whatever either of them
        // reports.
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
    use clicktally_proto::command::{COMMAND_LEVEL, PlanMove};
    use clicktally_proto::identity::shard_key::{GroupId, ShardId};

    use super::*;

    #[test]
    fn garbage_is_a_committed_rejection_and_changes_nothing() {
        let mut state = GroupState::new(GroupId(0));
        let before = state.clone();
        for garbage in [&b""[..], b"\x01", b"\xff\xff\xff\xff\xff\xff", &[1, 0, 0, 0, 0, 7, 7]] {
            let outcome = state.apply(1, garbage, COMMAND_LEVEL);
            assert!(matches!(outcome, Ok(Outcome::Rejected(Rejection::Undecodable(_)))), "{outcome:?}");
        }
        assert_eq!(state, before);
    }

    #[test]
    fn a_command_of_a_newer_build_is_not_answered_at_all() {
        let mut state = GroupState::new(GroupId(0));
        let before = state.clone();
        let plan = PlanMove { shard: ShardId(0), heir: None, expected_epoch: state.shards()[&ShardId(0)].epoch };
        let known = codec::encode(&Command::PlanMove(plan)).unwrap();
        assert!(state.apply(1, &known, 1).is_err());
        // As a variant behind the last one would stand there.
        assert!(state.apply(1, &codec::encode(&(99_u32, 7_u64)).unwrap(), COMMAND_LEVEL).is_err());
        assert_eq!(state, before);
        assert!(state.apply(1, &known, COMMAND_LEVEL).is_ok());
    }
}
