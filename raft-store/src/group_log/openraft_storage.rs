//! The log's reader and writer, as openraft calls them.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::Ordering;

use clicktally_proto::fault::{Mutant, is_broken};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::frames::{KEY_COMMITTED, KEY_PURGED, KEY_TAIL, KEY_VOTE, encode};
use super::{GroupLog, GroupLogError, REPLICATED_BYTES_MAX};
use crate::fail_stop::fail_stop;
use crate::storage::{Completion, LogEntry, LogWrite, StorageError};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Ends the process if the log can no longer be read or written. If the log was closed by an orderly shutdown, only
/// the operation fails.
fn or_fail_stop<T>(result: Result<T, GroupLogError>, doing: &str) -> Result<T, io::Error> {
    match result {
        Err(GroupLogError::Storage(error @ StorageError::Closed)) => Err(io::Error::other(error)),
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
        or_fail_stop(self.put_vote(*vote).await, "saving a Raft vote")
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.book.lock().committed = committed;
        let Some(committed) = committed else { return Ok(()) };
        // The committed index is a hint that saves the replay after a process crash a round trip. It is not worth an
        // fsync.
        or_fail_stop(self.put_soon(KEY_COMMITTED, &committed).await, "saving the committed index")
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let book = self.shared.book.lock();
        // The committed index is written without fsync. After a power loss it may be older or newer than the entries
        // that survived, so clamp it.
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
                        // Recovery may bring back entries from below a purge. The storage would reject an append that
                        // leaves a gap after them.
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
            debug_assert!(
                book.is_empty() || first.index == book.end_index(),
                "an append must continue the Raft log without a gap"
            );
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
            let submitted = self.shared.storage.submit(write, true, None).await.map_err(GroupLogError::from);
            return or_fail_stop(submitted, "appending to the Raft log");
        }
        let completion: Completion = Box::new(move |written| {
            let written = if is_broken(Mutant::FsyncErrorIgnored) { Ok(()) } else { written };
            let written = written.and_then(|()| shared.promises.keep_last(Some(last)));
            let written = or_fail_stop(written.map_err(GroupLogError::from), "appending to the Raft log");
            if written.is_ok() {
                let mut book = shared.book.lock();
                book.durable_appends = book.durable_appends.max(append);
                book.cache_shrink();
            }
            callback.io_completed(written);
        });
        or_fail_stop(
            self.shared.storage.submit(write, true, Some(completion)).await.map_err(GroupLogError::from),
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
                // No entry is left. Delete every stored entry, so that the next one may start at any index.
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
        let last = self.shared.book.lock().last;
        or_fail_stop(self.cut(write, last).await, "truncating the Raft log")
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let shared = &self.shared;
        let prepare = || {
            let mut book = shared.book.lock();
            let mut write = LogWrite::new(shared.group);
            write.put(KEY_PURGED, encode(&log_id, shared.group)?);
            book.purged = Some(log_id);
            let mut below = log_id.index + 1;
            let is_emptied = book.end_index() <= below;
            if is_emptied {
                // The log is empty now. Also delete the entries that a truncation left above its end.
                book.last = Some(log_id);
                below = below.max(book.physical_last.take().map_or(0, |physical| physical + 1));
                write.delete(KEY_TAIL);
                book.truncated = false;
            }
            write.forget_below(below);
            book.cache_retain(|index| index > log_id.index);
            Ok((write, is_emptied))
        };
        let (write, is_emptied) = or_fail_stop(prepare(), "purging the Raft log")?;
        let written = if is_emptied { self.cut(write, Some(log_id)).await } else { self.write_durably(write).await };
        or_fail_stop(written, "purging the Raft log")
    }
}
