//! The second copy of the promises of one group's replica: its vote, and the end of the log that it has acknowledged.
//!
//! *Reads / writes*: the group's [`PromiseStorage`]. *Promises*: the recorded end of the log was durable in the log
//! before it was recorded here; a vote is recorded here before the log. *On restart*: a log that holds less than this
//! record has been damaged, even if its own recovery accepted it.
//!
//! A write that a crash tore off looks like a write that rotted later: its checksum does not match, and it is at the
//! end of what can be read. Recovery must forgive the torn write, or no node would come back from a power cut. But if
//! it forgives the rotten one, it takes back a vote or an acknowledgement. A separate record of the finished writes
//! tells the two apart (Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST '18, section
//! 3.3).
//!
//! A vote is rare, so this module fsyncs it too. The end of the log moves with every append, so this module does not
//! fsync it. It survives the end of the process, but after a power cut it may be some seconds old. It then claims
//! less than the log holds, which never reports false damage.

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
    /// The last acknowledged entry. If the log has no entry, the newest purged one.
    pub(crate) last: Option<LogId>,
}

pub(crate) struct PromiseRecord {
    storage: Arc<dyn PromiseStorage>,
    kept: Mutex<Promises>,
}

impl PromiseRecord {
    /// Opens the record. The flag is false if the record could not be read; then this logs a warning and starts with
    /// an empty record.
    pub(crate) fn open(
        storage: Arc<dyn PromiseStorage>,
        group: GroupId,
    ) -> Result<(PromiseRecord, bool), StorageError> {
        let frame = storage.load().map_err(|error| StorageError::Read(error.into()))?;
        let decoded = if frame.is_empty() { Ok(Promises::default()) } else { codec::decode(&frame) };
        let is_readable = decoded.is_ok();
        let kept = decoded.unwrap_or_else(|error| {
            tracing::warn!(group = group.0, %error, "the second copy of this group's vote is damaged; the log's copy is used");
            Promises::default()
        });
        Ok((PromiseRecord { storage, kept: Mutex::new(kept) }, is_readable))
    }

    pub(crate) fn kept(&self) -> Promises {
        *self.kept.lock()
    }

    /// Records the vote. The record is durable when this returns.
    pub(crate) fn keep_vote(&self, vote: Vote) -> Result<(), StorageError> {
        self.keep(true, |kept| kept.vote = Some(vote))
    }

    /// Records that the log now ends at `last`, durably.
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

/// Damage to the log: this replica has acknowledged entries that it no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogDamage {
    /// The last acknowledged entry. To take part again, the replica must hold this entry, or the one with which a
    /// later leader replaced it.
    pub(crate) acknowledged: LogId,
    /// Describes the damage to the operator.
    pub(crate) what: String,
}

/// Whether a log that ends at `found` falls short of the acknowledged entry. Log ids are ordered by term and then by
/// index.
///
/// A log whose last entry has a later term does not fall short, even if it is shorter: the leader of that term cut it
/// on purpose.
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
        assert!(
            falls_short(id(1, 9), id(2, 5)),
            "a later leader replaced these entries, and the replacements are lost"
        );
        assert!(falls_short(None, id(1, 0)));
        assert!(!falls_short(id(1, 0), None));
    }
}
