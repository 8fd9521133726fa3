//! The contents of a group's log as of the last call (durable or not), and its recent entries in decoded form.

use std::collections::BTreeMap;

use clicktally_proto::identity::shard_key::GroupId;
use openraft::EntryPayload;

use super::GroupLogError;
use super::frames::{KEY_COMMITTED, KEY_PURGED, KEY_TAIL, KEY_VOTE, decode_entry, decode_key};
use crate::storage::{LogStorage, StorageError};
use crate::type_config::{Entry, LogId, Vote};

/// Limit of the recent entries kept in decoded form, so that replication and apply seldom read the disk.
pub(super) const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a cached entry costs in addition to its command.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The contents of the log as of the last call (durable or not).
#[derive(Default)]
pub(super) struct Book {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// The last entry. If the log has no entry, this equals `purged`.
    pub(super) last: Option<LogId>,
    /// Index of the first append into an empty log. Entries start here or after the purged ones.
    pub(super) started_at: u64,
    /// The highest index that the storage may still hold, including entries above a truncation.
    pub(super) physical_last: Option<u64>,
    /// The key `tail` is set in the storage: the next append must clear it.
    pub(super) truncated: bool,
    pub(super) cache: BTreeMap<u64, Cached>,
    pub(super) cache_bytes: usize,
    /// Counts the appends. The count tells which cached entries are durable.
    pub(super) appends: u64,
    pub(super) durable_appends: u64,
}

pub(super) struct Cached {
    pub(super) entry: Entry,
    pub(super) append: u64,
}

impl Book {
    /// Loads the book from the storage. The vote is the later of its two copies, because both were promised. If the
    /// copy in the storage cannot be read, `promised_vote` counts alone.
    pub(super) fn load(
        storage: &dyn LogStorage,
        promised_vote: Option<Vote>,
        group: GroupId,
    ) -> Result<Book, GroupLogError> {
        let damaged = |what: String| GroupLogError::Damaged { group: group.0, what };
        let key = |key: &str| storage.value(group, key);
        let vote: Option<Vote> = match decode_key(key(KEY_VOTE)?, &damaged) {
            // The other copy is written first, so it holds this vote or a later one.
            Err(GroupLogError::Damaged { .. }) if promised_vote.is_some() => promised_vote,
            read => read?.filter(|vote| Some(*vote) >= promised_vote).or(promised_vote),
        };
        let mut book = Book {
            vote,
            // The committed index is only a hint, so damage to it is ignored.
            committed: decode_key(key(KEY_COMMITTED)?, &damaged).ok().flatten(),
            purged: decode_key(key(KEY_PURGED)?, &damaged)?,
            physical_last: storage.last_index(group)?,
            ..Book::default()
        };
        let tail: Option<u64> = decode_key(key(KEY_TAIL)?, &damaged)?;
        book.truncated = tail.is_some();
        let first = book.first_index();
        let last = match (book.physical_last, tail) {
            (Some(physical), Some(tail)) => Some(physical.min(tail)),
            (physical, _) => physical,
        };
        book.last = book.purged;
        if let Some(last) = last.filter(|last| *last >= first) {
            let found = storage.first_index(group)?;
            if found.is_none_or(|found| found > first) {
                return Err(damaged(format!(
                    "entries from {first} on are missing; the first entry found is {found:?}"
                )));
            }
            let frames = match storage.read(group, last, last + 1, None) {
                Err(StorageError::Read(error)) => return Err(damaged(format!("entry {last}: {error}"))),
                read => read?,
            };
            let frame = frames.first().ok_or_else(|| damaged(format!("entry {last} is missing")))?;
            book.last = Some(decode_entry(frame, last, group)?.log_id);
        }
        Ok(book)
    }

    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1).max(self.started_at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end_index() <= self.first_index()
    }

    pub(super) fn end_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    pub(super) fn cache_insert(&mut self, entry: Entry, append: u64) {
        self.cache_bytes += entry_bytes(&entry);
        if let Some(replaced) = self.cache.insert(entry.log_id.index, Cached { entry, append }) {
            self.cache_bytes -= entry_bytes(&replaced.entry);
        }
    }

    /// Evicts the oldest cached entries that are durable in the storage.
    pub(super) fn cache_shrink(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX {
            let Some(oldest) = self.cache.first_entry() else { break };
            if oldest.get().append > self.durable_appends {
                break;
            }
            self.cache_bytes -= entry_bytes(&oldest.remove().entry);
        }
    }

    pub(super) fn cache_retain(&mut self, keep: impl Fn(u64) -> bool) {
        let cache_bytes = &mut self.cache_bytes;
        self.cache.retain(|index, cached| {
            let kept = keep(*index);
            if !kept {
                *cache_bytes -= entry_bytes(&cached.entry);
            }
            kept
        });
    }
}

pub(super) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(command) => command.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
