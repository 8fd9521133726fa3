//! The replica of one group on this node: openraft writes it, everybody else reads it.
//!
//! *Promises*: readers see each entry whole; nobody holds the lock for longer than one entry takes. A snapshot copies pointers under
//! it; a state that came in a snapshot was built elsewhere and is swapped in, and the one it replaces is freed elsewhere.

use std::sync::Arc;

use clicktally_proto::clock::Clock;
use clicktally_proto::command::Outcome;
use clicktally_proto::fault;
use openraft::EntryPayload;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::raft_metrics::METRICS;
use crate::type_config::{Entry, LogId, SnapshotMeta, StoredMembership};
use clicktally_state::apply::NewerCommand;
use clicktally_state::group_state::{FrozenState, GroupState};

pub(crate) struct Replica {
    applied_state: RwLock<AppliedState>,
    /// Index of the last applied entry; 0 also before the first.
    applied: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    /// Of the commands that this build applies.
    level: u16,
}

struct AppliedState {
    state: GroupState,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl Replica {
    pub(crate) fn new(meta: SnapshotMeta, state: GroupState, clock: Arc<dyn Clock>, level: u16) -> Replica {
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let applied = AppliedState { state, last_applied: meta.last_log_id, membership: meta.last_membership };
        Replica { applied_state: RwLock::new(applied), applied: watch::Sender::new(index), clock, level }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&GroupState) -> R) -> R {
        look(&self.applied_state.read().state)
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The last entry in it, and the members as of then.
    pub(crate) fn position(&self) -> (Option<LogId>, StoredMembership) {
        let applied = self.applied_state.read();
        (applied.last_applied, applied.membership.clone())
    }

    /// Applies entries and returns their outcomes. Readers see each entry whole. After an error it must not be called again.
    pub(crate) fn apply(&self, entries: Vec<Entry>) -> Result<Vec<Outcome>, NewerCommand> {
        let outcomes = entries.into_iter().map(|entry| self.apply_one(entry)).collect::<Result<_, _>>()?;
        let (last, group, held) = {
            let applied = self.applied_state.read();
            (applied.last_applied, applied.state.group(), applied.state.held())
        };
        METRICS.state_held(group, held);
        self.applied.send_replace(last.map_or(0, |last| last.index));
        Ok(outcomes)
    }

    fn apply_one(&self, entry: Entry) -> Result<Outcome, NewerCommand> {
        fault::point("raft.before_apply");
        let begun = self.clock.monotonic();
        let mut applied = self.applied_state.write();
        let outcome = match entry.payload {
            EntryPayload::Blank => Outcome::Done,
            EntryPayload::Normal(command) => applied.state.apply(entry.log_id.index, &command.0, self.level)?,
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcome::Done
            }
        };
        applied.last_applied = Some(entry.log_id);
        drop(applied);
        METRICS.apply_seconds.observe(self.clock.monotonic().saturating_sub(begun).as_secs_f64());
        fault::point("raft.after_apply");
        Ok(outcome)
    }

    pub(crate) fn freeze(&self) -> (SnapshotMeta, FrozenState) {
        let applied = self.applied_state.read();
        let meta = SnapshotMeta { last_log_id: applied.last_applied, last_membership: applied.membership.clone() };
        (meta, applied.state.freeze())
    }

    /// Puts another state in its place; the one that was there, for the caller to free.
    pub(crate) fn replace(&self, meta: &SnapshotMeta, state: GroupState) -> GroupState {
        let replaced = {
            let mut applied = self.applied_state.write();
            applied.last_applied = meta.last_log_id;
            applied.membership = meta.last_membership.clone();
            std::mem::replace(&mut applied.state, state)
        };
        self.applied.send_replace(meta.last_log_id.map_or(0, |last| last.index));
        replaced
    }
}
