//! How far PostgreSQL has the campaigns' terms.

use clicktally_proto::command::{Outcome, Rejection};

use crate::group_state::GroupState;

impl GroupState {
    /// Two writers may overlap for a moment. PostgreSQL holds what either of them reports.
    pub(super) fn terms_exported(&mut self, index: u64, through_revision: u64) -> Result<Outcome, Rejection> {
        // No writer can have read terms that come after this entry.
        let is_news = self.catalogue.exported(through_revision.min(index));
        Ok(if is_news { Outcome::Done } else { Outcome::AlreadyApplied })
    }
}
