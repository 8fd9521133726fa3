//! CT-21: every state that apply reaches keeps the rules of its parts. The rules are in the state crate, beside the
//! parts, and an audit of every replica checks them in production too (`raft-store/state/src/invariants.rs`).

use clicktally_state::group_state::GroupState;

use super::{Invariant, Violation};

/// `index` is that of the newest entry applied.
pub fn check(index: u64, state: &GroupState) -> Result<(), Violation> {
    state.check().map_err(|broken| {
        let detail = format!("group {} after entry {index}: {broken}", state.group().0);
        Violation { invariant: Invariant::StateSound, detail }
    })
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    #[test]
    fn a_new_state_is_sound() {
        assert_eq!(check(0, &GroupState::new(GroupId(0))), Ok(()));
    }
}
