//! Which raw topic the shards of the group count.

use clicktally_proto::command::{Outcome, Rejection};
use clicktally_proto::identity::log_id::LogId;

use crate::group_state::GroupState;

impl GroupState {
    /// The first name stays. Owners of several shards may propose it at the same time.
    pub(super) fn identify_log(&mut self, log: LogId) -> Result<Outcome, Rejection> {
        match self.log_id {
            None => {
                self.log_id = Some(log);
                Ok(Outcome::Done)
            }
            Some(kept) if kept == log => Ok(Outcome::AlreadyApplied),
            Some(kept) => Err(Rejection::OtherLog(kept)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn the_first_name_of_the_log_stays_whichever_proposer_comes_first() {
        for (first, second) in [(LogId([1; 16]), LogId([2; 16])), (LogId([2; 16]), LogId([1; 16]))] {
            let mut state = GroupState::new(GroupId(0));
            assert_eq!(state.identify_log(first), Ok(Outcome::Done));
            assert_eq!(state.identify_log(first), Ok(Outcome::AlreadyApplied));
            assert_eq!(state.identify_log(second), Err(Rejection::OtherLog(first)));
            assert_eq!(state.log_id(), Some(first));
        }
    }
}
