//! Decides what the answer to a checkpoint's proposal means for its owner. Pure: an answer goes in, a decision comes
//! out, and [`super::commit`] carries it out.

use std::time::Duration;

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_raft_store::group::ProposeError;

/// The pause between attempts doubles from the first value to the second.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How the attempts to commit one cut ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitEnd {
    Committed,
    /// Another owner now counts this shard.
    Fenced,
    /// Memory and replicated state differ: the shard starts again from replicated state.
    Restart(String),
    Halted(String),
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    End(CommitEnd),
    /// Propose the same checkpoint again at once: the answer was lost on the way.
    Again,
    /// Propose the same checkpoint again after a pause, for this reason.
    AgainLater(String),
    /// Propose the same checkpoint again after a pause. It was certainly not applied, and room will come with time.
    /// Meanwhile the shard stops reading at its own limit.
    AwaitRoom(Rejection),
}

/// The history of the attempts to commit one cut, as far as the next decision depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitAttempts {
    /// A previous attempt may have been applied although its answer was lost.
    is_repeat: bool,
}

impl CommitAttempts {
    /// `is_answer_lost`: behave as if the answer had never arrived.
    pub fn judge(&mut self, answer: Result<Outcome, ProposeError>, is_answer_lost: bool) -> NextStep {
        let restart = |reason: String| NextStep::End(CommitEnd::Restart(reason));
        match answer {
            Ok(Outcome::Done | Outcome::AlreadyApplied) if is_answer_lost => {
                self.is_repeat = true;
                NextStep::Again
            }
            Ok(Outcome::Done) => NextStep::End(CommitEnd::Committed),
            Ok(Outcome::AlreadyApplied) if self.is_repeat => NextStep::End(CommitEnd::Committed),
            // A previous incarnation of this node read the same records under this epoch. A leader of an older build
            // does not compare the watermarks.
            Ok(Outcome::AlreadyApplied) => restart("a previous incarnation committed the same offsets".into()),
            Ok(Outcome::Fenced { .. }) => NextStep::End(CommitEnd::Fenced),
            Ok(Outcome::OffsetGap { .. }) if is_broken(Mutant::GapTakenForSuccess) => {
                NextStep::End(CommitEnd::Committed)
            }
            Ok(Outcome::OffsetGap { expected }) => restart(format!("the group is at offset {expected}")),
            Ok(Outcome::Rejected(rejection @ Rejection::FinalWindow)) => restart(rejection.to_string()),
            Ok(Outcome::Rejected(rejection @ Rejection::StateFull { .. })) => NextStep::AwaitRoom(rejection),
            Ok(other) => NextStep::End(CommitEnd::Halted(format!("the group refused a checkpoint: {other:?}"))),
            Err(ProposeError::Retry(reason)) => {
                self.is_repeat = true;
                NextStep::AgainLater(reason)
            }
            Err(ProposeError::Halt(reason)) => NextStep::End(CommitEnd::Halted(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Result<Outcome, ProposeError> {
        Err(ProposeError::Retry("no answer".into()))
    }

    #[test]
    fn already_applied_is_a_success_only_after_an_earlier_proposal_of_the_same_owner() {
        let mut first = CommitAttempts::default();
        assert!(matches!(first.judge(Ok(Outcome::AlreadyApplied), false), NextStep::End(CommitEnd::Restart(_))));
        let mut second = CommitAttempts::default();
        assert!(matches!(second.judge(lost(), false), NextStep::AgainLater(_)));
        assert_eq!(second.judge(Ok(Outcome::AlreadyApplied), false), NextStep::End(CommitEnd::Committed));
        let mut third = CommitAttempts::default();
        assert_eq!(third.judge(Ok(Outcome::Done), true), NextStep::Again);
        assert_eq!(third.judge(Ok(Outcome::AlreadyApplied), false), NextStep::End(CommitEnd::Committed));
    }

    #[test]
    fn a_shard_that_waits_for_room_has_certainly_not_committed() {
        let mut attempts = CommitAttempts::default();
        let full = Rejection::StateFull { needed_bytes: 2, limit_bytes: 1 };
        assert_eq!(attempts.judge(Ok(Outcome::Rejected(full.clone())), false), NextStep::AwaitRoom(full));
        assert!(matches!(attempts.judge(Ok(Outcome::AlreadyApplied), false), NextStep::End(CommitEnd::Restart(_))));
    }

    #[test]
    fn an_owner_that_is_behind_or_fenced_never_goes_on_as_if_it_had_committed() {
        let judge = |outcome| CommitAttempts::default().judge(Ok(outcome), false);
        assert!(matches!(judge(Outcome::OffsetGap { expected: 3 }), NextStep::End(CommitEnd::Restart(_))));
        assert_eq!(
            judge(Outcome::Fenced { current: clicktally_proto::checkpoint::Epoch(2) }),
            NextStep::End(CommitEnd::Fenced)
        );
        assert!(matches!(judge(Outcome::Rejected(Rejection::NotConserved)), NextStep::End(CommitEnd::Halted(_))));
    }
}
