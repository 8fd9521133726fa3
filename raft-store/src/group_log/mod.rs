//! The Raft log of one group, in the node's shared [`LogStorage`].
//!
//! *Reads / writes*: the group's entries in the storage, and the keys `vote`, `committed`, `purged`, `tail`; its record of
//! promises. *Promises*: an entry can be read as soon as `append` returned and is durable when its callback runs; a vote, a truncation
//! and a purge are durable when they return. *On restart*: the log ends where the last durable write left it; if it does not, because
//! the disk lost or changed something, [`GroupLog::damage`] says so.
//!
//! The storage replaces a tail only by writing over it, so a truncation is the key `tail` until the next append: entries above
//! it do not exist.

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
use self::frames::{KEY_PURGED, KEY_TAIL, KEY_VOTE, decode_entry, encode};
use crate::blocking;
use crate::group_log::promises::{LogDamage, PromiseRecord, falls_short};
use crate::storage::{LogStorage, LogWrite, PromiseStorage, StorageError, write_durably};
use crate::type_config::{Entry, LogId, Vote};

/// Entries handed to one AppendEntries call stop growing here; openraft itself only counts entries.
pub(crate) const REPLICATED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of entries held at once while a log is read through.
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

/// One group's log; clones share it. The reader and the writer of openraft are the same thing here.
#[derive(Clone)]
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
}

struct Shared {
    group: GroupId,
    storage: Arc<dyn LogStorage>,
    promises: PromiseRecord,
    /// As found when it was opened.
    damage: Option<LogDamage>,
    book: Mutex<Book>,
    /// Grows by what is appended; the snapshot policy compares it with what it was at the last snapshot.
    appended_bytes: AtomicU64,
}

impl GroupLog {
    /// Finds the group's log in the storage, empty if it was never written, and reads all of it: bit rot is to be found while the
    /// node can still do something about it. See [`GroupLog::damage`].
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
            (Some(what), None) => return Err(damaged(format!("{what}, and so is the record of what was promised"))),
            (None, Some(acknowledged)) if falls_short => {
                let what = format!("it ends at entry {:?}", book.last.map(|last| last.index));
                Some(LogDamage { acknowledged, what })
            }
            (None, _) => None,
        };
        if !are_readable && book.vote.is_none() {
            return Err(damaged("both copies of the vote are gone".to_owned()));
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

    /// Writes the vote again where the storage's own copy of it is older or cannot be read, so that there are two of it once more.
    pub(crate) async fn restore_vote(&self) -> Result<(), GroupLogError> {
        let shared = &self.shared;
        let Some(vote) = self.vote() else { return Ok(()) };
        let stored = shared.storage.value(shared.group, KEY_VOTE)?;
        if stored.as_deref() == Some(encode(&vote, shared.group)?.as_slice()) {
            return Ok(());
        }
        tracing::warn!(
            group = shared.group.0,
            "this group's vote is damaged in its log; the second copy takes its place"
        );
        self.put_durably(KEY_VOTE, &vote).await
    }

    /// Entries that were acknowledged and cannot be read any more. Such a log must not be used before
    /// [`GroupLog::restart_behind`].
    pub(crate) fn damage(&self) -> Option<&LogDamage> {
        self.shared.damage.as_ref()
    }

    /// Makes a damaged log empty, and go on behind a snapshot that has all it ever held.
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

    /// Nothing was ever written: neither a vote nor an entry.
    pub(crate) fn is_pristine(&self) -> bool {
        let book = self.shared.book.lock();
        book.vote.is_none() && book.last.is_none() && book.purged.is_none()
    }

    /// Index of the newest purged entry.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.shared.book.lock().purged.map(|purged| purged.index)
    }

    /// The last entry, or the newest purged one where there is none.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.shared.book.lock().last.map(|last| last.index)
    }

    /// The last entry that lies in the storage, readable or not, also above a truncation.
    pub(crate) fn physical_last(&self) -> Option<u64> {
        self.shared.book.lock().physical_last
    }

    /// The newest vote saved.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.book.lock().vote
    }

    /// Before openraft opens the log: makes it agree with a snapshot that came from a peer, as if the leader of its last entry had
    /// installed it here. An entry that contradicts it was never committed, nor was any behind it. The vote only ever rises.
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

    /// Bytes of commands appended since the process started.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// Of all groups of this node, on its disk.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.storage.used_bytes()
    }

    /// Entries of `[from, to)` that exist, at most `bytes_max` of them but at least one.
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
                    // Purged while we read: what is left starts later.
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
        // Decompression and perhaps a disk: not on the thread that answers heartbeats.
        match blocking::run(read).await {
            Ok(entries) => entries,
            Err(_) => Err(StorageError::Closed.into()),
        }
    }

    /// In both places; the second one first, so that the log never has a vote that the other lacks.
    async fn put_vote(&self, vote: Vote) -> Result<(), GroupLogError> {
        self.shared.promises.keep_vote(vote)?;
        self.put_durably(KEY_VOTE, &vote).await?;
        // Readers must not see a vote that a crash could take back.
        self.shared.book.lock().vote = Some(vote);
        Ok(())
    }

    /// Without waiting until it would survive a power loss.
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

    /// Carries out what leaves `last` as the end of the log.
    async fn cut(&self, write: LogWrite, last: Option<LogId>) -> Result<(), GroupLogError> {
        self.write_durably(write).await?;
        // Afterwards: should the process end in between, the record only accuses a log that is whole, and it is healed for nothing.
        Ok(self.shared.promises.keep_last(last)?)
    }

    async fn write_durably(&self, write: LogWrite) -> Result<(), GroupLogError> {
        Ok(write_durably(self.shared.storage.as_ref(), write).await?)
    }
}

/// Why an entry between the log's ends cannot be read; `None` if all can.
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
