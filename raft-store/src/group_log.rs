//! The Raft log of one group, in the node's shared [`LogStorage`].
//!
//! *Reads / writes*: the group's entries in the storage, and the keys `vote`, `committed`, `purged`, `tail`. *Promises*: an
//! entry can be read as soon as `append` returned and is durable when its callback runs; a vote, a truncation and a purge are
//! durable when they return. *On restart*: the log ends where the last durable write left it.
//!
//! The storage replaces a tail only by writing over it, so a truncation is the key `tail` until the next append: entries above
//! it do not exist.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clicktally_proto::codec;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::shard_key::GroupId;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::blocking;
use crate::fail_stop::fail_stop;
use crate::storage::{Completion, LogEntry, LogStorage, LogWrite, StorageError, write_durably};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Entries handed to one AppendEntries call stop growing here; openraft itself only counts entries.
pub(crate) const REPLICATED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Recent entries kept decoded, so that replication and apply seldom read the disk.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an entry costs beside its command.
const ENTRY_OVERHEAD_BYTES: usize = 64;

const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
const KEY_TAIL: &str = "tail";

#[derive(Debug, Error)]
pub enum LogError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the Raft log of group {group} is damaged: {what}")]
    Damaged { group: u16, what: String },
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> io::Error {
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
    book: Mutex<Book>,
    /// Grows by what is appended; the snapshot policy compares it with what it was at the last snapshot.
    appended_bytes: AtomicU64,
}

/// What is in the log, as of the last call (durable or not).
#[derive(Default)]
struct Book {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// The last entry, or `purged` where there is none.
    last: Option<LogId>,
    /// Index of the first append into an empty log; entries start here or behind what was purged.
    started_at: u64,
    /// The highest index the storage may still hold, also above a truncation.
    physical_last: Option<u64>,
    /// `tail` is set in the storage: the next append must clear it.
    truncated: bool,
    cache: BTreeMap<u64, Cached>,
    cache_bytes: usize,
    /// Numbers appends, to know which cached entries are durable.
    appends: u64,
    durable_appends: u64,
}

struct Cached {
    entry: Entry,
    append: u64,
}

impl Book {
    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1).max(self.started_at)
    }

    fn is_empty(&self) -> bool {
        self.end_index() <= self.first_index()
    }

    fn end_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn cache_insert(&mut self, entry: Entry, append: u64) {
        self.cache_bytes += entry_bytes(&entry);
        if let Some(replaced) = self.cache.insert(entry.log_id.index, Cached { entry, append }) {
            self.cache_bytes -= entry_bytes(&replaced.entry);
        }
    }

    /// Drops the oldest entries the storage holds for certain.
    fn cache_shrink(&mut self) {
        while self.cache_bytes > CACHE_BYTES_MAX {
            let Some(oldest) = self.cache.first_entry() else { break };
            if oldest.get().append > self.durable_appends {
                break;
            }
            self.cache_bytes -= entry_bytes(&oldest.remove().entry);
        }
    }

    fn cache_retain(&mut self, keep: impl Fn(u64) -> bool) {
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

fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(command) => command.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

impl GroupLog {
    /// Finds the group's log in the storage; empty if it was never written.
    pub(crate) fn open(storage: Arc<dyn LogStorage>, group: GroupId) -> Result<GroupLog, LogError> {
        let damaged = |what: String| LogError::Damaged { group: group.0, what };
        let key = |key: &str| storage.value(group, key);
        let mut book = Book {
            vote: decode_key(key(KEY_VOTE)?, &damaged)?,
            committed: decode_key(key(KEY_COMMITTED)?, &damaged)?,
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
                return Err(damaged(format!("entries from {first} on are missing, the first is {found:?}")));
            }
            let frames = storage.read(group, last, last + 1, None)?;
            let frame = frames.first().ok_or_else(|| damaged(format!("entry {last} is missing")))?;
            book.last = Some(decode_entry(frame, last, group)?.log_id);
        }
        Ok(GroupLog {
            shared: Arc::new(Shared { group, storage, book: Mutex::new(book), appended_bytes: AtomicU64::new(0) }),
        })
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

    /// The term of the newest vote saved.
    pub(crate) fn vote_term(&self) -> u64 {
        self.shared.book.lock().vote.map_or(0, |vote| vote.leader_id.term)
    }

    /// Before openraft opens the log: makes it agree with a snapshot that came from a peer, as if the leader of its last entry had
    /// installed it here. An entry that contradicts it was never committed, nor was any behind it. The vote only ever rises.
    pub(crate) async fn agree_with(&mut self, last: LogId) -> Result<(), LogError> {
        let vote = Vote::new_committed(last.leader_id.term, last.leader_id.node_id);
        if self.shared.book.lock().vote < Some(vote) {
            self.put_durably(KEY_VOTE, &vote).await?;
            self.shared.book.lock().vote = Some(vote);
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
    async fn entries(&self, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Entry>, LogError> {
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

    async fn read_storage(&self, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Entry>, LogError> {
        let shared = self.shared.clone();
        let read = move || -> Result<Vec<Entry>, LogError> {
            let frames = shared.storage.read(shared.group, from, to, bytes_max)?;
            (from..).zip(frames).map(|(index, frame)| decode_entry(&frame, index, shared.group)).collect()
        };
        // Decompression and perhaps a disk: not on the thread that answers heartbeats.
        match blocking::run(read).await {
            Ok(entries) => entries,
            Err(_) => Err(StorageError::Closed.into()),
        }
    }

    async fn put_durably<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), LogError> {
        let mut write = LogWrite::new(self.shared.group);
        write.put(key, encode(value, self.shared.group)?);
        self.write_durably(write).await
    }

    /// Without waiting until it would survive a power loss.
    async fn put_soon<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), LogError> {
        let mut write = LogWrite::new(self.shared.group);
        write.put(key, encode(value, self.shared.group)?);
        Ok(self.shared.storage.submit(write, false, None).await?)
    }

    async fn write_durably(&self, write: LogWrite) -> Result<(), LogError> {
        Ok(write_durably(self.shared.storage.as_ref(), write).await?)
    }
}

fn encode<T: Serialize>(value: &T, group: GroupId) -> Result<Vec<u8>, LogError> {
    codec::encode(value).map_err(|e| LogError::Damaged { group: group.0, what: e.to_string() })
}

fn decode_key<T: DeserializeOwned>(
    frame: Option<Vec<u8>>,
    damaged: &impl Fn(String) -> LogError,
) -> Result<Option<T>, LogError> {
    frame.map(|frame| codec::decode(&frame).map_err(|e| damaged(e.to_string()))).transpose()
}

fn decode_entry(frame: &[u8], index: u64, group: GroupId) -> Result<Entry, LogError> {
    let damaged = |what: String| LogError::Damaged { group: group.0, what };
    let entry: Entry = codec::decode(frame).map_err(|e| damaged(format!("entry {index}: {e}")))?;
    if entry.log_id.index != index {
        return Err(damaged(format!("entry {index} calls itself {}", entry.log_id.index)));
    }
    Ok(entry)
}

/// A log that cannot be read or written any more ends the process; a closed one (orderly shutdown) only the operation.
fn or_fail_stop<T>(result: Result<T, LogError>, doing: &str) -> Result<T, io::Error> {
    match result {
        Err(LogError::Storage(error @ StorageError::Closed)) => Err(io::Error::other(error)),
        Err(error) => fail_stop(doing, error),
        Ok(value) => Ok(value),
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        or_fail_stop(self.entries(from, to, None).await, "reading the Raft log")
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.book.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        or_fail_stop(self.entries(start, end, Some(REPLICATED_BYTES_MAX)).await, "reading the Raft log")
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let book = self.shared.book.lock();
        Ok(LogState { last_purged_log_id: book.purged, last_log_id: book.last })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if is_broken(Mutant::VoteNotDurable) {
            self.shared.book.lock().vote = Some(*vote);
            return or_fail_stop(self.put_soon(KEY_VOTE, vote).await, "saving a Raft vote");
        }
        or_fail_stop(self.put_durably(KEY_VOTE, vote).await, "saving a Raft vote")?;
        // Readers must not see a vote that a crash could take back.
        self.shared.book.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.book.lock().committed = committed;
        let Some(committed) = committed else { return Ok(()) };
        // A hint that spares the replay after a process crash a round trip: not worth an fsync.
        or_fail_stop(self.put_soon(KEY_COMMITTED, &committed).await, "saving the committed index")
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let book = self.shared.book.lock();
        // Written without fsync, so after a power loss it may be older or newer than what else survived: clamp it.
        Ok(book.committed.min(book.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (Some(first), Some(last)) =
            (entries.first().map(|entry| entry.log_id), entries.last().map(|entry| entry.log_id))
        else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let shared = self.shared.clone();
        let prepare = || {
            let mut frames = Vec::with_capacity(entries.len());
            let mut bytes = 0;
            for entry in &entries {
                let frame = encode(entry, shared.group)?;
                bytes += frame.len();
                frames.push(LogEntry { index: entry.log_id.index, frame });
            }
            let mut write = LogWrite::new(shared.group);
            {
                let mut book = shared.book.lock();
                if book.truncated {
                    write.delete(KEY_TAIL);
                }
                if book.is_empty() {
                    book.started_at = first.index;
                    if let Some(physical_last) = book.physical_last
                        && !is_broken(Mutant::RecoveredNotForgotten)
                    {
                        // Recovery may bring back entries from below a purge; a gap behind them would be refused.
                        write.forget_below(physical_last + 1);
                    }
                }
            }
            write.entries(frames);
            Ok((write, bytes))
        };
        let (write, bytes) = or_fail_stop(prepare(), "encoding entries for the Raft log")?;
        shared.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let append = {
            let mut book = shared.book.lock();
            debug_assert!(book.is_empty() || first.index == book.end_index(), "a hole in the Raft log");
            book.appends += 1;
            let append = book.appends;
            for entry in entries {
                book.cache_insert(entry, append);
            }
            book.truncated = false;
            book.last = Some(last);
            book.physical_last = Some(last.index);
            append
        };
        if is_broken(Mutant::AckBeforeFsync) {
            callback.io_completed(Ok(()));
            let submitted = self.shared.storage.submit(write, true, None).await.map_err(LogError::from);
            return or_fail_stop(submitted, "appending to the Raft log");
        }
        let completion: Completion = Box::new(move |written| {
            let written = if is_broken(Mutant::FsyncErrorIgnored) { Ok(()) } else { written };
            let written = or_fail_stop(written.map_err(LogError::from), "appending to the Raft log");
            if written.is_ok() {
                let mut book = shared.book.lock();
                book.durable_appends = book.durable_appends.max(append);
                book.cache_shrink();
            }
            callback.io_completed(written);
        });
        or_fail_stop(
            self.shared.storage.submit(write, true, Some(completion)).await.map_err(LogError::from),
            "appending to the Raft log",
        )
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        if is_broken(Mutant::TruncationIgnored) {
            return Ok(());
        }
        let shared = &self.shared;
        let prepare = || {
            let mut book = shared.book.lock();
            let end = last_log_id.map_or(0, |last| last.index + 1).max(book.first_index());
            if end >= book.end_index() {
                return Ok(None);
            }
            let mut write = LogWrite::new(shared.group);
            if end <= book.first_index() {
                // Nothing is left: forget every entry, so that the next may start anywhere.
                book.last = book.purged;
                book.started_at = 0;
                if let Some(physical_last) = book.physical_last.take() {
                    write.forget_below(physical_last + 1);
                }
                write.delete(KEY_TAIL);
                book.truncated = false;
            } else {
                book.last = last_log_id;
                write.put(KEY_TAIL, encode(&(end - 1), shared.group)?);
                book.truncated = true;
            }
            book.cache_retain(|index| index < end);
            Ok(Some(write))
        };
        let Some(write) = or_fail_stop(prepare(), "truncating the Raft log")? else { return Ok(()) };
        or_fail_stop(self.write_durably(write).await, "truncating the Raft log")
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let shared = &self.shared;
        let prepare = || {
            let mut book = shared.book.lock();
            let mut write = LogWrite::new(shared.group);
            write.put(KEY_PURGED, encode(&log_id, shared.group)?);
            book.purged = Some(log_id);
            let mut below = log_id.index + 1;
            if book.end_index() <= below {
                // The log is empty now; also forget what a truncation left above its end.
                book.last = Some(log_id);
                below = below.max(book.physical_last.take().map_or(0, |physical| physical + 1));
                write.delete(KEY_TAIL);
                book.truncated = false;
            }
            write.forget_below(below);
            book.cache_retain(|index| index > log_id.index);
            Ok(write)
        };
        let write = or_fail_stop(prepare(), "purging the Raft log")?;
        or_fail_stop(self.write_durably(write).await, "purging the Raft log")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clicktally_proto::clock::SystemClock;
    use openraft::StorageError;
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::storage::RaftLogStorageExt;
    use openraft::testing::log::{StoreBuilder, Suite};
    use tempfile::TempDir;

    use super::*;
    use crate::disk_storage::DiskStorage;
    use crate::group_snapshots::GroupSnapshots;
    use crate::state_machine::StateMachine;
    use crate::storage::Storage;
    use crate::type_config::CommandBytes;

    const GROUP: GroupId = GroupId(3);

    struct Fresh;

    impl StoreBuilder<TypeConfig, GroupLog, StateMachine, TempDir> for Fresh {
        async fn build(&self) -> Result<(TempDir, GroupLog, StateMachine), StorageError<TypeConfig>> {
            let folder = tempfile::tempdir().unwrap();
            let disk = DiskStorage::new(folder.path());
            let snapshots = GroupSnapshots::new(GROUP, disk.open_snapshots(GROUP).unwrap());
            let log = GroupLog::open(disk.open_log().unwrap(), GROUP).unwrap();
            Ok((folder, log, StateMachine::open(GROUP, snapshots, Arc::new(SystemClock)).unwrap()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_and_the_state_machine_keep_openrafts_contract() {
        Suite::test_all(Fresh).await.unwrap();
    }

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId { term, node_id: 1 }, index)
    }

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        let command = CommandBytes(Bytes::from(vec![term as u8; bytes]));
        Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(command) }
    }

    fn indexes(entries: &[Entry]) -> Vec<(u64, u64)> {
        entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn votes_truncations_and_purges_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(folder.path()).open_log().unwrap();
        let mut log = GroupLog::open(storage.clone(), GROUP).unwrap();
        let mut neighbour = GroupLog::open(storage.clone(), GroupId(4)).unwrap();
        assert!(log.is_pristine());
        log.blocking_append((0..10).map(|index| entry(1, index, 10))).await.unwrap();
        neighbour.blocking_append([entry(5, 0, 10)]).await.unwrap();
        log.save_vote(&Vote::new(7, 2)).await.unwrap();
        log.truncate_after(Some(log_id(1, 6))).await.unwrap();
        log.purge(log_id(1, 2)).await.unwrap();
        storage.close();

        let storage = DiskStorage::new(folder.path()).open_log().unwrap();
        let mut log = GroupLog::open(storage.clone(), GROUP).unwrap();
        assert!(!log.is_pristine());
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 2)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 2)), Some(log_id(1, 6))));
        assert_eq!(indexes(&log.try_get_log_entries(0..100).await.unwrap()), [(1, 3), (1, 4), (1, 5), (1, 6)]);

        // A new leader's entries replace what was truncated, and only that.
        log.blocking_append([entry(2, 7, 10)]).await.unwrap();
        storage.close();
        let storage = DiskStorage::new(folder.path()).open_log().unwrap();
        let mut log = GroupLog::open(storage.clone(), GROUP).unwrap();
        assert_eq!(indexes(&log.try_get_log_entries(6..).await.unwrap()), [(1, 6), (2, 7)]);

        // A snapshot from far ahead: everything is purged, and the log goes on behind a gap.
        log.purge(log_id(3, 50)).await.unwrap();
        log.blocking_append([entry(3, 51, 10)]).await.unwrap();
        storage.close();
        let storage = DiskStorage::new(folder.path()).open_log().unwrap();
        let mut log = GroupLog::open(storage.clone(), GROUP).unwrap();
        assert_eq!(indexes(&log.try_get_log_entries(..).await.unwrap()), [(3, 51)]);
        let mut neighbour = GroupLog::open(storage.clone(), GroupId(4)).unwrap();
        assert_eq!(indexes(&neighbour.try_get_log_entries(..).await.unwrap()), [(5, 0)]);
        storage.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn replication_is_bounded_by_bytes_from_cache_and_disk_alike() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(folder.path()).open_log().unwrap();
        let mut log = GroupLog::open(storage.clone(), GROUP).unwrap();
        // Twenty of 1 MiB: the older half has left the cache.
        for index in 0..20 {
            log.blocking_append([entry(1, index, 1024 * 1024)]).await.unwrap();
        }
        assert!(log.shared.book.lock().cache_bytes <= CACHE_BYTES_MAX);
        for start in [0, 9, 12, 16] {
            let entries = log.limited_get_log_entries(start, 20).await.unwrap();
            assert_eq!(entries[0].log_id.index, start);
            let bytes: usize = entries.iter().map(entry_bytes).sum();
            assert!((1..=REPLICATED_BYTES_MAX).contains(&bytes), "{bytes} bytes from {start}");
        }
        assert_eq!(log.try_get_log_entries(0..20).await.unwrap().len(), 20);
        storage.close();
    }
}
