//! Records how far a sink has published the windows. Final windows that are published may leave.

use clicktally_proto::command::{Outcome, Rejection};

use crate::group_state::GroupState;

impl GroupState {
    pub(super) fn sink_progress(&mut self, published_revision: u64) -> Result<Outcome, Rejection> {
        if !self.publication.published(published_revision) {
            return Ok(Outcome::AlreadyApplied);
        }
        self.evict_windows();
        Ok(Outcome::Done)
    }
}
