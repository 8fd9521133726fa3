//! The Storage seam: everything a node keeps on a disk. Production uses [`crate::disk_storage`]; a test wraps that and lets it
//! fail, a simulation brings its own.
//!
//! What is promised here is what Raft rests on. An implementation that cannot keep it ends the process or says so: on any error
//! but [`StorageError::Closed`] from a log, the caller ends the process (see `fail_stop`). Nothing is ever tried again.

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
    #[error("cannot open the Raft log in {path}: {source}; is its disk full, or another process using it?")]
    OpenLog { path: String, source: Box<dyn Error + Send + Sync> },
    #[error("{path}: {source}")]
    Folder { path: String, source: io::Error },
    #[error("the Raft log is closed")]
    Closed,
    #[error("the Raft log cannot be read: {0}")]
    Read(Box<dyn Error + Send + Sync>),
    #[error("the Raft log cannot be written: {0}")]
    Write(Box<dyn Error + Send + Sync>),
}

/// What one node keeps, of all its groups.
pub trait Storage: Send + Sync {
    /// Where that is, for messages to an operator.
    fn place(&self) -> String;

    /// Who owns this storage, as [`Storage::save_identity`] left it; `None` if nobody does yet.
    fn identity(&self) -> Result<Option<Vec<u8>>, StorageError>;

    /// Durable when it returns.
    fn save_identity(&self, frame: &[u8]) -> Result<(), StorageError>;

    /// Opens (and recovers) the log of all groups; creates it where there is none. What was completed is there, unless it rotted; of
    /// the rest, a prefix of what was submitted. One that is damaged beyond recovery is set aside, and an empty one takes its place:
    /// what every group has promised ([`Storage::open_promises`]) tells the two apart.
    fn open_log(&self) -> Result<Arc<dyn LogStorage>, StorageError>;

    /// Opens the snapshots of one group; creates their folder where there is none.
    fn open_snapshots(&self, group: GroupId) -> Result<Arc<dyn SnapshotStorage>, StorageError>;

    /// Opens the second copy of what one group has promised.
    fn open_promises(&self, group: GroupId) -> Result<Arc<dyn PromiseStorage>, StorageError>;
}

/// A few bytes that must not share the fate of the log: another file, another place.
pub trait PromiseStorage: Send + Sync {
    /// As last stored; empty where nothing ever was.
    fn load(&self) -> io::Result<Vec<u8>>;

    /// Overwrites it, at most 255 bytes. Survives the end of this process when it returns; a power loss too, if `durable`.
    fn store(&self, frame: &[u8], durable: bool) -> io::Result<()>;
}

/// Runs on the thread that wrote, once the write stands or it is in doubt whether it does; must be short. Dropped without a call
/// where the log closed before.
pub type Completion = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// One entry of a group's log: its index, and bytes that are opaque to the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub frame: Vec<u8>,
}

/// A step of a [`LogWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOperation {
    /// Entries in a row. They replace what is stored at the first one's index and above; they may not leave a gap behind what is
    /// stored below.
    Entries(Vec<LogEntry>),
    /// Sets a value beside the entries.
    Put {
        key: &'static str,
        value: Vec<u8>,
    },
    Delete {
        key: &'static str,
    },
    /// Forgets entries below `index`; the next may then start anywhere above. Recovery may bring some of them back.
    ForgetBelow {
        index: u64,
    },
}

/// Changes to one group's log, carried out in their order, and together or not at all.
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

    /// Bytes of the frames of its entries.
    pub fn entry_bytes(&self) -> usize {
        let entries = self.operations.iter().filter_map(|operation| match operation {
            LogOperation::Entries(entries) => Some(entries),
            _ => None,
        });
        entries.flatten().map(|entry| entry.frame.len()).sum()
    }
}

/// The log of all groups of a node. Writes land in the order they were submitted.
pub trait LogStorage: Send + Sync {
    /// Queues a write; ready when it is queued. `completion` runs when it is written and, if `durable`, will survive a power loss.
    fn submit(
        &self,
        write: LogWrite,
        durable: bool,
        completion: Option<Completion>,
    ) -> BoxFuture<'_, Result<(), StorageError>>;

    /// The value last [put](LogOperation::Put).
    fn value(&self, group: GroupId, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    fn first_index(&self, group: GroupId) -> Result<Option<u64>, StorageError>;

    fn last_index(&self, group: GroupId) -> Result<Option<u64>, StorageError>;

    /// The frames of entries `[from, to)`, at most `bytes_max` of them but at least one. An error if one is missing. May block
    /// on a disk.
    fn read(&self, group: GroupId, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Vec<u8>>, StorageError>;

    /// Bytes it takes for all groups: live, waiting to be [given back](LogStorage::purge_files), or reserved for what comes next.
    fn used_bytes(&self) -> u64;

    /// Gives back space that holds nothing live. Returns the groups whose old entries block that: snapshot and purge them. May
    /// block on a disk.
    fn purge_files(&self) -> Result<Vec<GroupId>, StorageError>;

    /// Finishes queued writes and releases the log, so that it can be opened again. Idempotent; blocks for at most one fsync.
    fn close(&self);
}

/// Queues a write and waits until it is on disk.
pub(crate) async fn write_durably(log: &dyn LogStorage, write: LogWrite) -> Result<(), StorageError> {
    let (done, finished) = oneshot::channel();
    let completion: Completion = Box::new(move |written| {
        // The waiter may be gone; the write stands either way.
        let _ = done.send(written);
    });
    log.submit(write, true, Some(completion)).await?;
    finished.await.map_err(|_| StorageError::Closed)?
}

/// Which snapshot: the last log entry in it. The order is that of their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotName {
    pub index: u64,
    pub term: u64,
}

/// The snapshots of one group, bytes that are opaque to the storage. All of it may block on a disk. Nothing here holds a snapshot
/// in memory: they are written and read in pieces.
pub trait SnapshotStorage: Send + Sync {
    /// In any order; only those that were committed.
    fn names(&self) -> io::Result<Vec<SnapshotName>>;

    /// What was opened can be read to its end, also if the snapshot is removed meanwhile.
    fn open(&self, name: SnapshotName) -> io::Result<Box<dyn SnapshotReader>>;

    /// Begins a snapshot that nobody sees until it is committed. Any number may be under way.
    fn create(&self) -> io::Result<Box<dyn SnapshotWriter>>;

    fn remove(&self, name: SnapshotName) -> io::Result<()>;

    /// Takes a damaged snapshot out of [`SnapshotStorage::names`], but keeps its bytes for whoever wants to know why.
    fn set_aside(&self, name: SnapshotName) -> io::Result<()>;
}

/// A snapshot being read: forward, or from any byte on.
pub trait SnapshotReader: io::Read + io::Seek + Send {}

impl<R: io::Read + io::Seek + Send> SnapshotReader for R {}

/// A snapshot being written, piece after piece. Dropped without a commit, it leaves nothing behind.
pub trait SnapshotWriter: io::Write + Send {
    /// Reads what was written so far, from its beginning.
    fn reread(&self) -> io::Result<Box<dyn SnapshotReader>>;

    /// Durable, its name too, when it returns; in the place of one of that name, if there is one.
    fn commit(self: Box<Self>, name: SnapshotName) -> io::Result<()>;
}
