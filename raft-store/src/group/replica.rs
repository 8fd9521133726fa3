//! The replica of one group on this node. openraft writes it, and all other components read it.
//!
//! *Promises*: readers see each entry completely or not at all. The lock is held at most for as long as one entry
//! takes. A snapshot only copies pointers under the lock. A state from a received snapshot is built without the lock
//! and then swapped in; the replaced state is freed without the lock. An [`Audit`] checks the state as entries are
//! applied. It reports a broken rule loudly and lets the replica go on: every other replica has the same state, so
//! halting would turn a defect into an outage of the group. Invoices do not depend on this state.

use std::sync::Arc;

use clicktally_proto::clock::Clock;
use clicktally_proto::command::Outcome;
use clicktally_proto::fault;
use openraft::EntryPayload;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::raft_metrics::METRICS;
use crate::type_config::{Entry, LogId, SnapshotMeta, StoredMembership};
use clicktally_state::apply::NewerCommand;
use clicktally_state::group_state::{FrozenState, GroupState};
use clicktally_state::invariants::Audit;

pub(crate) struct Replica {
    applied_state: RwLock<AppliedState>,
    /// The index of the last applied entry; 0 before the first entry too.
    applied: watch::Sender<u64>,
    audit: Mutex<Audit>,
    clock: Arc<dyn Clock>,
    /// The highest level of the commands that this build applies.
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
        let (applied_state, audit) = (RwLock::new(applied), Mutex::default());
        Replica { applied_state, applied: watch::Sender::new(index), audit, clock, level }
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&GroupState) -> R) -> R {
        look(&self.applied_state.read().state)
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The last applied entry, and the members as of that entry.
    pub(crate) fn position(&self) -> (Option<LogId>, StoredMembership) {
        let applied = self.applied_state.read();
        (applied.last_applied, applied.membership.clone())
    }

    /// Applies entries and returns their outcomes. Readers see each entry completely or not at all. Do not call it
    /// again after an error.
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
        if Audit::is_due(entry.log_id.index) {
            self.audit(entry.log_id.index);
        }
        Ok(outcome)
    }

    /// Readers go on meanwhile: it takes the lock as one of them.
    fn audit(&self, index: u64) {
        let applied = self.applied_state.read();
        let Err(broken) = self.audit.lock().step(index, &applied.state) else { return };
        let group = applied.state.group();
        drop(applied);
        // The next step finds the same again; one line in the log is enough.
        if METRICS.invariant_broken(group, broken.rule) == 1 {
            tracing::error!(
                group = group.0,
                index,
                rule = broken.rule,
                detail = broken.detail,
                "the replicated state breaks an invariant: counts of this group may be wrong; report this defect with the log"
            );
        }
    }

    pub(crate) fn freeze(&self) -> (SnapshotMeta, FrozenState) {
        let applied = self.applied_state.read();
        let meta = SnapshotMeta { last_log_id: applied.last_applied, last_membership: applied.membership.clone() };
        (meta, applied.state.freeze())
    }

    /// Replaces the state. Returns the old one, so that the caller can free it.
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
