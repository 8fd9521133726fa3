//! The Storage seam: everything that a node keeps on a disk. Production uses [`crate::disk_storage`]. A test wraps
//! that and makes it fail; a simulation provides its own.
//!
//! Raft relies on the promises of these traits. An implementation that cannot keep one ends the process or returns an
//! error. On any error of a log except [`StorageError::Closed`], the caller ends the process (see `fail_stop`). No
//! operation is ever retried.

use std::error::Error;
use std::io;
use std::sync::Arc;

use clicktally_proto::identity::shard_key::GroupId;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

#[derive(Debug, Error)]
pub enum StorageError {
    #[error("cannot open the Raft log in {path}: {source}; check whether its disk is full or another process uses it")]
    OpenLog { path: String, source: Box<dyn Error + Send + Sync> },
    #[error("{path}: {source}")]
    Folder { path: String, source: io::Error },
    #[error("the Raft log is closed")]
    Closed,
    #[error("cannot read the Raft log: {0}")]
    Read(Box<dyn Error + Send + Sync>),
    #[error("cannot write the Raft log: {0}")]
    Write(Box<dyn Error + Send + Sync>),
}

/// The storage of one node, for all its groups.
pub trait Storage: Send + Sync {
    /// The location of the storage, for messages to an operator.
    fn place(&self) -> String;

    /// The owner of this storage, as [`Storage::save_identity`] stored it. `None` if the storage has no owner yet.
    fn identity(&self) -> Result<Option<Vec<u8>>, StorageError>;

    /// Stores the owner. The record is durable when this returns.
    fn save_identity(&self, frame: &[u8]) -> Result<(), StorageError>;

    /// Opens and recovers the log of all groups. Creates the log if it is missing. Every completed write is there,
    /// unless it rotted. A prefix of the other submitted writes may be there too.
    ///
    /// If the log is damaged beyond recovery, it is set aside, and an empty log replaces it. The promises of each
    /// group ([`Storage::open_promises`]) tell such a log from one that was always empty.
    fn open_log(&self) -> Result<Arc<dyn LogStorage>, StorageError>;

    /// Opens the snapshots of one group. Creates their folder if it is missing.
    fn open_snapshots(&self, group: GroupId) -> Result<Arc<dyn SnapshotStorage>, StorageError>;

    /// Opens the second copy of one group's promises.
    fn open_promises(&self, group: GroupId) -> Result<Arc<dyn PromiseStorage>, StorageError>;
}

/// Stores a few bytes that must survive the loss of the log. So they are kept in another file, in another place.
pub trait PromiseStorage: Send + Sync {
    /// The bytes as last stored. Empty if nothing was ever stored.
    fn load(&self) -> io::Result<Vec<u8>>;

    /// Overwrites the record with at most 255 bytes. When this returns, the record survives the end of this process.
    /// If `durable`, it also survives a power loss.
    fn store(&self, frame: &[u8], durable: bool) -> io::Result<()>;
}

/// Runs on the writing thread, once the write has succeeded or its outcome is in doubt. It must be short. If the log
/// closes first, it is dropped without a call.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// One entry of a group's log: its index, and a frame whose bytes are opaque to the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub frame: Vec<u8>,
}

/// A step of a [`LogWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOperation {
    /// Consecutive entries. They replace the stored entries from the first one's index on. They must not leave a gap
    /// after the stored entries below.
    Entries(Vec<LogEntry>),
    /// Sets a value that is stored beside the entries.
    Put {
        key: &'static str,
        value: Vec<u8>,
    },
    Delete {
        key: &'static str,
    },
    /// Deletes the entries below `index`. The next entry may then start at any index from there on. Recovery may
    /// bring back some of the deleted ones.
    ForgetBelow {
        index: u64,
    },
}

/// Changes to one group's log. They are applied in order, and all together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWrite {
    pub group: GroupId,
    pub operations: Vec<LogOperation>,
}

impl LogWrite {
    pub fn new(group: GroupId) -> LogWrite {
        LogWrite { group, operations: Vec::new() }
    }

    pub(crate) fn entries(&mut self, entries: Vec<LogEntry>) {
        self.operations.push(LogOperation::Entries(entries));
    }

    pub(crate) fn put(&mut self, key: &'static str, value: Vec<u8>) {
        self.operations.push(LogOperation::Put { key, value });
    }

    pub(crate) fn delete(&mut self, key: &'static str) {
        self.operations.push(LogOperation::Delete { key });
    }

    pub(crate) fn forget_below(&mut self, index: u64) {
        self.operations.push(LogOperation::ForgetBelow { index });
    }

    /// Total bytes of the frames of its entries.
    pub fn entry_bytes(&self) -> usize {
        let entries = self.operations.iter().filter_map(|operation| match operation {
            LogOperation::Entries(entries) => Some(entries),
            _ => None,
        });
        entries.flatten().map(|entry| entry.frame.len()).sum()
    }
}

/// The log of all groups of a node. Writes are applied in the order of their submission.
pub trait LogStorage: Send + Sync {
    /// Queues a write; the future is ready when the write is queued. `completion` runs when the write is done and, if
    /// `durable`, will survive a power loss.
    fn submit(
        &self,
        write: LogWrite,
        durable: bool,
        completion: Option<Completion>,
    ) -> BoxFuture<'_, Result<(), StorageError>>;

    /// The value that was last [put](LogOperation::Put).
    fn value(&self, group: GroupId, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    fn first_index(&self, group: GroupId) -> Result<Option<u64>, StorageError>;

    fn last_index(&self, group: GroupId) -> Result<Option<u64>, StorageError>;

    /// The frames of the entries `[from, to)`: at most `bytes_max` bytes of them, but at least one frame. Returns an
    /// error if an entry is missing. May block on a disk.
    fn read(&self, group: GroupId, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Vec<u8>>, StorageError>;

    /// Bytes on disk for all groups: live, waiting to be [freed](LogStorage::purge_files), or reserved for later
    /// writes.
    fn used_bytes(&self) -> u64;

    /// Frees space that holds no live entry. Returns the groups whose old entries prevent that: snapshot and purge
    /// them. May block on a disk.
    fn purge_files(&self) -> Result<Vec<GroupId>, StorageError>;

    /// Finishes the queued writes and releases the log, so that it can be opened again. Idempotent. Blocks for at
    /// most one fsync.
    fn close(&self);
}

/// Queues a write and waits until it is on disk.
pub(crate) async fn write_durably(log: &dyn LogStorage, write: LogWrite) -> Result<(), StorageError> {
    let (done, finished) = oneshot::channel();
    let completion: Completion = Box::new(move |written| {
        // The waiter may be gone. The write counts either way.
        let _ = done.send(written);
    });
    log.submit(write, true, Some(completion)).await?;
    finished.await.map_err(|_| StorageError::Closed)?
}

/// Names a snapshot by the last log entry that it covers. Names are ordered by the age of the snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotName {
    pub index: u64,
    pub term: u64,
}

/// The snapshots of one group; their bytes are opaque to the storage. Every call may block on a disk. Snapshots are
/// written and read in pieces, and are never held in memory as a whole.
pub trait SnapshotStorage: Send + Sync {
    /// The committed snapshots, in any order.
    fn names(&self) -> io::Result<Vec<SnapshotName>>;

    /// Opens a snapshot. The reader can read it to its end, even if it is removed in the meantime.
    fn open(&self, name: SnapshotName) -> io::Result<Box<dyn SnapshotReader>>;

    /// Begins a snapshot that stays invisible until it is committed. Any number may be in progress.
    fn create(&self) -> io::Result<Box<dyn SnapshotWriter>>;

    fn remove(&self, name: SnapshotName) -> io::Result<()>;

    /// Removes a damaged snapshot from [`SnapshotStorage::names`], but keeps its bytes for an investigation.
    fn set_aside(&self, name: SnapshotName) -> io::Result<()>;
}

/// A snapshot that is being read, forward or from any byte on.
pub trait SnapshotReader: io::Read + io::Seek + Send {}

impl<R: io::Read + io::Seek + Send> SnapshotReader for R {}

/// A snapshot that is being written piece by piece. If it is dropped without a commit, it leaves nothing behind.
pub trait SnapshotWriter: io::Write + Send {
    /// Reads the bytes written so far, from the beginning.
    fn reread(&self) -> io::Result<Box<dyn SnapshotReader>>;

    /// Makes the snapshot and its name durable before it returns. Replaces a snapshot of the same name.
    fn commit(self: Box<Self>, name: SnapshotName) -> io::Result<()>;
}
