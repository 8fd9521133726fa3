//! The Raft log of one group, in the node's shared [`LogStorage`].
//!
//! *Reads / writes*: the group's entries in the storage, the keys `vote`, `committed`, `purged`, `tail` and `lost`,
//! and its record of promises. *Promises*: an entry can be read as soon as `append` has returned, and is durable
//! when its callback runs. A vote, a truncation and a purge are durable when their calls return. *On restart*: the
//! log ends where the last durable write left it. If the disk lost or changed something, [`GroupLog::damage`]
//! reports it.
//!
//! The storage replaces a tail only by overwriting it. So a truncation is recorded in the key `tail` until the next
//! append: entries above that index count as deleted.

mod book;
mod frames;
mod openraft_storage;
pub(crate) mod promises;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clicktally_proto::codec::CodecError;
use clicktally_proto::identity::shard_key::GroupId;
use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

use self::book::{Book, entry_bytes};
use self::frames::{KEY_LOST, KEY_PURGED, KEY_TAIL, KEY_VOTE, decode_entry, decode_key, encode};
use crate::blocking;
use crate::group_log::promises::{LogDamage, PromiseRecord, falls_short};
use crate::storage::{LogStorage, LogWrite, PromiseStorage, StorageError, write_durably};
use crate::type_config::{Entry, LogId, Vote};

/// The log adds no further entries to one AppendEntries call beyond this many bytes. openraft itself only limits
/// their number.
pub(crate) const REPLICATED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of entries in memory at once while the whole log is scanned.
const SCANNED_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum GroupLogError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the Raft log of group {group} is damaged: {what}")]
    Damaged { group: u16, what: String },
    #[error("the Raft log was written by a newer build: {0}")]
    Newer(CodecError),
}

impl From<GroupLogError> for io::Error {
    fn from(error: GroupLogError) -> io::Error {
        io::Error::other(error)
    }
}

/// One group's log. Clones share it. This type is both the reader and the writer that openraft wants.
#[derive(Clone)]
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
}

struct Shared {
    group: GroupId,
    storage: Arc<dyn LogStorage>,
    promises: PromiseRecord,
    /// The damage that was found when the log was opened.
    damage: Option<LogDamage>,
    book: Mutex<Book>,
    /// Counts the appended bytes. The snapshot policy compares it with its value at the last snapshot.
    appended_bytes: AtomicU64,
}

impl GroupLog {
    /// Opens the group's log in the storage; a log that was never written is empty. Reads the whole log, so that bit
    /// rot is found while the node can still repair it. See [`GroupLog::damage`].
    pub(crate) fn open(
        storage: Arc<dyn LogStorage>,
        promises: Arc<dyn PromiseStorage>,
        group: GroupId,
    ) -> Result<GroupLog, GroupLogError> {
        let (promises, are_readable) = PromiseRecord::open(promises, group)?;
        let promised = promises.kept();
        let (book, unreadable) = match Book::load(storage.as_ref(), promised.vote, group) {
            Ok(book) => {
                let unreadable = first_unreadable(storage.as_ref(), &book, group)?;
                (book, unreadable)
            }
            Err(GroupLogError::Damaged { what, .. }) => {
                let physical_last = storage.last_index(group)?;
                (Book { vote: promised.vote, physical_last, ..Book::default() }, Some(what))
            }
            Err(error) => return Err(error),
        };
        let damaged = |what: String| GroupLogError::Damaged { group: group.0, what };
        let falls_short = falls_short(book.last, promised.last);
        let damage = match (unreadable, promised.last) {
            (Some(what), Some(acknowledged)) => Some(LogDamage { acknowledged, what }),
            (Some(what), None) => {
                return Err(damaged(format!(
                    "{what}; the record of this replica's promises is damaged or missing too"
                )));
            }
            (None, Some(acknowledged)) if falls_short => {
                let what = format!("the log ends at entry {:?}", book.last.map(|last| last.index));
                Some(LogDamage { acknowledged, what })
            }
            (None, _) => None,
        };
        if !are_readable && book.vote.is_none() {
            return Err(damaged("both copies of the vote are lost".to_owned()));
        }
        if damage.is_none() {
            promises.keep_last(book.last)?;
        }
        if let Some(vote) = book.vote {
            promises.keep_vote(vote)?;
        }
        let book = Mutex::new(book);
        let appended_bytes = AtomicU64::new(0);
        Ok(GroupLog { shared: Arc::new(Shared { group, storage, promises, damage, book, appended_bytes }) })
    }

    /// Rewrites the storage's copy of the vote if it is older or cannot be read, so that two copies exist again.
    pub(crate) async fn restore_vote(&self) -> Result<(), GroupLogError> {
        let shared = &self.shared;
        let Some(vote) = self.vote() else { return Ok(()) };
        let stored = shared.storage.value(shared.group, KEY_VOTE)?;
        if stored.as_deref() == Some(encode(&vote, shared.group)?.as_slice()) {
            return Ok(());
        }
        tracing::warn!(
            group = shared.group.0,
            "the vote in this group's log is damaged or outdated; it was replaced from the second copy"
        );
        self.put_durably(KEY_VOTE, &vote).await
    }

    /// Reports acknowledged entries that cannot be read any more. A damaged log must not be used before
    /// [`GroupLog::restart_behind`].
    pub(crate) fn damage(&self) -> Option<&LogDamage> {
        self.shared.damage.as_ref()
    }

    /// Empties a damaged log and restarts it after the last entry of a snapshot. That snapshot must cover every entry
    /// that the log ever held.
    pub(crate) async fn restart_behind(&mut self, last: LogId) -> Result<(), GroupLogError> {
        let shared = &self.shared;
        let (vote, physical_last) = {
            let book = shared.book.lock();
            let of_leader = Vote::new_committed(last.leader_id.term, last.leader_id.node_id);
            (book.vote.filter(|vote| *vote > of_leader).unwrap_or(of_leader), book.physical_last)
        };
        shared.promises.keep_vote(vote)?;
        let mut write = LogWrite::new(shared.group);
        write.put(KEY_VOTE, encode(&vote, shared.group)?);
        write.put(KEY_PURGED, encode(&last, shared.group)?);
        write.delete(KEY_TAIL);
        write.forget_below(physical_last.unwrap_or(0).max(last.index) + 1);
        self.cut(write, Some(last)).await?;
        *shared.book.lock() = Book { vote: Some(vote), purged: Some(last), last: Some(last), ..Book::default() };
        Ok(())
    }

    /// Whether neither a vote nor an entry was ever written.
    pub(crate) fn is_pristine(&self) -> bool {
        let book = self.shared.book.lock();
        book.vote.is_none() && book.last.is_none() && book.purged.is_none()
    }

    /// The index of the newest purged entry.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.shared.book.lock().purged.map(|purged| purged.index)
    }

    /// The index of the last entry. If the log has no entry, the index of the newest purged one.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.shared.book.lock().last.map(|last| last.index)
    }

    /// The index of the last entry in the storage, readable or not, including entries above a truncation.
    pub(crate) fn physical_last(&self) -> Option<u64> {
        self.shared.book.lock().physical_last
    }

    /// The newest saved vote.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.book.lock().vote
    }

    /// Makes the log agree with a snapshot from a peer, as if the leader of the snapshot's last entry had installed
    /// it here. Call it before openraft opens the log. If an entry contradicts the snapshot, neither that entry nor a
    /// later one was ever committed. The vote only ever rises.
    pub(crate) async fn agree_with(&mut self, last: LogId) -> Result<(), GroupLogError> {
        let vote = Vote::new_committed(last.leader_id.term, last.leader_id.node_id);
        if self.shared.book.lock().vote < Some(vote) {
            self.put_vote(vote).await?;
        }
        let found = self.entries(last.index, last.index + 1, None).await?;
        if found.first().is_some_and(|entry| entry.log_id != last) {
            let purged = self.shared.book.lock().purged;
            self.truncate_after(purged).await.map_err(|error| StorageError::Write(error.into()))?;
        }
        Ok(())
    }

    /// Notes, durably, that this node had acknowledged entries up to `acknowledged`, and that this log is older. Only
    /// the leader of that moment knows it; the note still holds when that leader is gone.
    pub(crate) async fn keep_lost(&self, acknowledged: u64) -> Result<(), GroupLogError> {
        self.put_durably(KEY_LOST, &acknowledged).await
    }

    /// What [`GroupLog::keep_lost`] noted in this log.
    pub(crate) fn lost(&self) -> Result<Option<u64>, GroupLogError> {
        let shared = &self.shared;
        let damaged = |what: String| GroupLogError::Damaged { group: shared.group.0, what };
        decode_key(shared.storage.value(shared.group, KEY_LOST)?, &damaged)
    }

    /// Bytes of entries appended since the process started.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// Bytes on disk of the logs of all groups of this node.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.storage.used_bytes()
    }

    /// The existing entries of `[from, to)`: at most `bytes_max` bytes of them, but at least one entry.
    async fn entries(&self, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Entry>, GroupLogError> {
        loop {
            let (first, mut cached, split) = {
                let book = self.shared.book.lock();
                let (first, end) = (from.max(book.first_index()), to.min(book.end_index()));
                if first >= end {
                    return Ok(Vec::new());
                }
                let cached: Vec<Entry> = book.cache.range(first..end).map(|(_, cached)| cached.entry.clone()).collect();
                let split = cached.first().map_or(end, |entry| entry.log_id.index);
                (first, cached, split)
            };
            if first < split {
                let mut entries = match self.read_storage(first, split, bytes_max).await {
                    Ok(entries) => entries,
                    // The entries were purged while we read them. The remaining ones start later.
                    Err(_) if self.shared.book.lock().first_index() > first => continue,
                    Err(error) => return Err(error),
                };
                let complete = entries.len() as u64 == split - first;
                if complete {
                    entries.append(&mut cached);
                }
                cached = entries;
            }
            if let Some(bytes_max) = bytes_max {
                let mut bytes = 0;
                let kept = cached.iter().take_while(|entry| {
                    bytes += entry_bytes(entry);
                    bytes <= bytes_max
                });
                let kept = kept.count().max(1);
                cached.truncate(kept);
            }
            return Ok(cached);
        }
    }

    async fn read_storage(&self, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Entry>, GroupLogError> {
        let shared = self.shared.clone();
        let read = move || -> Result<Vec<Entry>, GroupLogError> {
            let frames = shared.storage.read(shared.group, from, to, bytes_max)?;
            (from..).zip(frames).map(|(index, frame)| decode_entry(&frame, index, shared.group)).collect()
        };
        // This decompresses and may read the disk, so it must not run on the thread that answers heartbeats.
        match blocking::run(read).await {
            Ok(entries) => entries,
            Err(_) => Err(StorageError::Closed.into()),
        }
    }

    /// Writes both copies of the vote. The record of promises comes first, so that the log never holds a vote that
    /// the record lacks.
    async fn put_vote(&self, vote: Vote) -> Result<(), GroupLogError> {
        self.shared.promises.keep_vote(vote)?;
        self.put_durably(KEY_VOTE, &vote).await?;
        // Readers must not see a vote that a crash could undo.
        self.shared.book.lock().vote = Some(vote);
        Ok(())
    }

    /// Writes a key without waiting until the write would survive a power loss.
    async fn put_soon<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), GroupLogError> {
        let mut write = LogWrite::new(self.shared.group);
        write.put(key, encode(value, self.shared.group)?);
        Ok(self.shared.storage.submit(write, false, None).await?)
    }

    async fn put_durably<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), GroupLogError> {
        let mut write = LogWrite::new(self.shared.group);
        write.put(key, encode(value, self.shared.group)?);
        self.write_durably(write).await
    }

    /// Carries out a write that leaves `last` as the end of the log.
    async fn cut(&self, write: LogWrite, last: Option<LogId>) -> Result<(), GroupLogError> {
        self.write_durably(write).await?;
        // The record follows the write. If we crash in between, the record wrongly reports damage; the only cost is
        // an unnecessary repair.
        Ok(self.shared.promises.keep_last(last)?)
    }

    async fn write_durably(&self, write: LogWrite) -> Result<(), GroupLogError> {
        Ok(write_durably(self.shared.storage.as_ref(), write).await?)
    }
}

/// The reason why an entry between the log's ends cannot be read. `None` if every entry can be read.
fn first_unreadable(storage: &dyn LogStorage, book: &Book, group: GroupId) -> Result<Option<String>, GroupLogError> {
    let mut next = book.first_index();
    while next < book.end_index() {
        let frames = match storage.read(group, next, book.end_index(), Some(SCANNED_BYTES_MAX)) {
            Ok(frames) => frames,
            Err(StorageError::Read(error)) => return Ok(Some(format!("entries from {next} on: {error}"))),
            Err(error) => return Err(error.into()),
        };
        for frame in frames {
            match decode_entry(&frame, next, group) {
                Err(GroupLogError::Damaged { what, .. }) => return Ok(Some(what)),
                read => drop(read?),
            }
            next += 1;
        }
    }
    Ok(None)
}
