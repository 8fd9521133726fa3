//! Stage two: the one writer of [`GroupState`], one file per command.
//!
//! Promises: deterministic, without clock, randomness, floats, hash order or I/O. Bad input is a committed rejection
//! that changes nothing, never a panic, because a poisonous entry would stop every replica at each restart. Only a
//! command of a newer build stops a replica: other replicas apply it, and rejecting it here would make states differ.

mod announce_level;
mod assign_shard;
mod checkpoint;
mod configure;
mod finalise_window;
mod identify_log;
mod lease_worker;
mod plan_move;
mod register_node;
mod remove_node;
mod set_campaign;
mod set_draining;
mod sink_progress;
mod terms_exported;

use clicktally_proto::codec::{self, CodecError};
use clicktally_proto::command::{Command, Outcome, Rejection};
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

/// Why a build does not carry out a command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("it is of a newer build: {0}")]
    Newer(String),
    #[error("{0}")]
    Damaged(String),
}

/// Decodes a command as a build of this command level does.
pub fn read_command(command: &[u8], level: u16) -> Result<Command, Unreadable> {
    match codec::decode::<Command>(command) {
        Ok(command) if command.level() <= level => Ok(command),
        Ok(command) => Err(Unreadable::Newer(format!("a command of level {}", command.level()))),
        // The checksum is valid, so this is not corruption: a newer build can decode it.
        Err(error @ (CodecError::Version(_) | CodecError::Payload(_))) => Err(Unreadable::Newer(error.to_string())),
        Err(error) => Err(Unreadable::Damaged(error.to_string())),
    }
}

impl GroupState {
    /// Applies the entry at log index `index` with a build of this command `level`. `command` is opaque to Raft: it is
    /// encoded once, by its proposer.
    pub fn apply(&mut self, index: u64, command: &[u8], level: u16) -> Result<Outcome, NewerCommand> {
        match read_command(command, level) {
            Ok(command) => Ok(self.apply_command(index, command)),
            Err(Unreadable::Newer(_)) if is_broken(Mutant::NewerRejected) => {
                Ok(Outcome::Rejected(Rejection::Undecodable("a command of a newer build".to_owned())))
            }
            Err(Unreadable::Newer(what)) => Err(NewerCommand { index, level, what }),
            Err(Unreadable::Damaged(error)) => Ok(Outcome::Rejected(Rejection::Undecodable(error))),
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
            Command::TermsExported { through_revision } => self.terms_exported(index, through_revision),
            Command::IdentifyLog { log } => self.identify_log(log),
        };
        // Only in the tests of this crate: the check takes far longer than the apply.
        #[cfg(test)]
        self.check().unwrap_or_else(|broken| panic!("entry {index} broke the state: {broken}"));
        outcome.unwrap_or_else(Outcome::Rejected)
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
