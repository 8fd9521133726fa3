//! The second copy of what one group's replica has promised: its vote, and the end of the log it has acknowledged.
//!
//! *Reads / writes*: the group's [`PromiseStorage`]. *Promises*: what is kept here was durable in the log before. *On restart*: a log
//! that holds less than what is kept here has been damaged, whatever its own recovery made of it.
//!
//! A write that a crash tore off looks like one that rotted later: a checksum that does not match, at the end of what can be read. Recovery
//! has to forgive the first, or no node would come back from a power cut; forgiving the second takes back a vote or an
//! acknowledgement. What tells them apart is a record of its own that says what was finished (Alagappan et al., *Protocol-Aware
//! Recovery for Consensus-Based Storage*, FAST '18, section 3.3). A vote is fsynced here as well: it is rare. The end of the log is
//! not, for it moves with every append. It survives the process, and after a power cut it may be some seconds old:
//! then it says less than the log holds, which accuses nobody.

use std::sync::Arc;

use clicktally_proto::codec;
use clicktally_proto::identity::shard_key::GroupId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::storage::{PromiseStorage, StorageError};
use crate::type_config::{LogId, Vote};

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Promises {
    pub(crate) vote: Option<Vote>,
    /// The last entry acknowledged, or the newest one purged where none is left.
    pub(crate) last: Option<LogId>,
}

pub(crate) struct PromiseRecord {
    storage: Arc<dyn PromiseStorage>,
    kept: Mutex<Promises>,
}

impl PromiseRecord {
    /// What is kept, and whether it could be read: a record that cannot is as good as none, and says so once.
    pub(crate) fn open(
        storage: Arc<dyn PromiseStorage>,
        group: GroupId,
    ) -> Result<(PromiseRecord, bool), StorageError> {
        let frame = storage.load().map_err(|error| StorageError::Read(error.into()))?;
        let decoded = if frame.is_empty() { Ok(Promises::default()) } else { codec::decode(&frame) };
        let is_readable = decoded.is_ok();
        let kept = decoded.unwrap_or_else(|error| {
            tracing::warn!(group = group.0, %error, "the second copy of this group's vote is damaged; the log's own holds");
            Promises::default()
        });
        Ok((PromiseRecord { storage, kept: Mutex::new(kept) }, is_readable))
    }

    pub(crate) fn kept(&self) -> Promises {
        *self.kept.lock()
    }

    /// Durable when it returns.
    pub(crate) fn keep_vote(&self, vote: Vote) -> Result<(), StorageError> {
        self.keep(true, |kept| kept.vote = Some(vote))
    }

    /// The log ends here now, durably.
    pub(crate) fn keep_last(&self, last: Option<LogId>) -> Result<(), StorageError> {
        self.keep(false, |kept| kept.last = last)
    }

    fn keep(&self, durable: bool, change: impl FnOnce(&mut Promises)) -> Result<(), StorageError> {
        let mut kept = self.kept.lock();
        let mut changed = *kept;
        change(&mut changed);
        if changed == *kept {
            return Ok(());
        }
        let frame = codec::encode(&changed).map_err(|error| StorageError::Write(error.into()))?;
        self.storage.store(&frame, durable).map_err(|error| StorageError::Write(error.into()))?;
        *kept = changed;
        Ok(())
    }
}

/// Entries that this replica has acknowledged and does not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogDamage {
    /// The last entry acknowledged: whoever takes part again must hold this one, or what a later leader put in its place.
    pub(crate) acknowledged: LogId,
    /// For the operator.
    pub(crate) what: String,
}

/// The log of an order by which a longer or a newer one holds more: `found` falls short of what was acknowledged.
///
/// A log whose last entry is of a later term is not short, also where it is shorter: the leader of that term cut it on purpose.
pub(crate) fn falls_short(found: Option<LogId>, acknowledged: Option<LogId>) -> bool {
    found < acknowledged
}

#[cfg(test)]
mod tests {
    use openraft::impls::leader_id_adv::LeaderId;

    use super::*;

    #[test]
    fn a_log_cut_by_a_later_leader_is_not_short_and_one_that_lost_its_end_is() {
        let id = |term, index| Some(LogId::new(LeaderId { term, node_id: 1 }, index));
        assert!(!falls_short(id(2, 5), id(2, 5)));
        assert!(!falls_short(id(3, 4), id(2, 5)));
        assert!(falls_short(id(2, 4), id(2, 5)));
        assert!(falls_short(id(1, 9), id(2, 5)), "the entries that took the place of these are gone");
        assert!(falls_short(None, id(1, 0)));
        assert!(!falls_short(id(1, 0), None));
    }
}
