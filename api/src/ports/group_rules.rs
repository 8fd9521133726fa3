//! The event-time rules that the groups count by, as replicated state has them.

use std::sync::{Arc, OnceLock};

use clicktally_proto::event_time::EventTimeRules;
use clicktally_raft_store::group::Group;

/// The rules of every group, in order of group. They are read once, because the settings of a group never change.
#[derive(Debug, Default)]
pub struct GroupRules(OnceLock<Vec<EventTimeRules>>);

impl GroupRules {
    /// `None` until the local replica of every group has its settings.
    pub fn of(&self, groups: &[Arc<Group>]) -> Option<&[EventTimeRules]> {
        if self.0.get().is_none() {
            let rules = |group: &Arc<Group>| group.read(|state| Some(state.settings()?.event_time));
            let known: Vec<EventTimeRules> = groups.iter().map(rules).collect::<Option<_>>()?;
            // Another request may have read the same meanwhile.
            let _ = self.0.set(known);
        }
        self.0.get().map(Vec::as_slice)
    }
}
