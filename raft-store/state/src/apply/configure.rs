//! The settings of a group: set once. Only the memory budget may change, and only upwards.

use clicktally_proto::command::{GroupSettings, Outcome, Rejection};

use crate::group_state::GroupState;

impl GroupState {
    /// Raising the budget is the only way out if the windows that are not final are larger than it. Nodes that are
    /// configured with different budgets agree on the largest.
    pub(super) fn configure(&mut self, settings: GroupSettings) -> Result<Outcome, Rejection> {
        let Some(current) = self.settings else {
            self.settings = Some(settings);
            return Ok(Outcome::Done);
        };
        let state_bytes_max = current.state_bytes_max.max(settings.state_bytes_max);
        let raised = GroupSettings { state_bytes_max, ..current };
        if (GroupSettings { state_bytes_max, ..settings }) != raised {
            return Err(Rejection::SettingsDiffer);
        }
        self.settings = Some(raised);
        Ok(if raised == current { Outcome::AlreadyApplied } else { Outcome::Done })
    }
}
