//! One raft-engine serves all groups of a node: one append-only log, one writer thread, and one fsync for all waiting
//! writes.
//!
//! *Reads*: its own folder. *Writes*: its own folder. *Promises*: writes are applied in the order of their
//! submission; a durable write is on disk before its completion runs. *On restart*: every completed write is there,
//! unless it rotted. A prefix of the other writes may be there too.
//!
//! raft-engine treats damage at the end of its last file as a torn write and cuts it off. If the log has damage that
//! raft-engine cannot explain this way, this module sets the log aside. [`crate::group_log::promises`] decides whether
//! acknowledged entries are missing.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use clicktally_proto::fault;
use clicktally_proto::identity::shard_key::GroupId;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use tokio::sync::mpsc;

use crate::fail_stop::{FailStopOnPanic, fail_stop};
use crate::storage::{Completion, LogEntry, LogOperation, LogStorage, LogWrite, StorageError};

/// Limit of the writes waiting for the writer thread. Each group has at most a few in flight, so this limit is never
/// the bottleneck.
const WRITE_QUEUE_MAX: usize = 1_024;
/// The writer thread merges no further writes into one fsync once they have this many bytes.
const MERGED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Size of one log file. Disk space is freed in units of this size.
const FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Above this size, raft-engine deletes files whose entries are all purged and rewrites the live rest of old files.
const PURGE_THRESHOLD_BYTES: u64 = 2 * FILE_BYTES;
/// Bytes the log may occupy beyond its live entries: purging starts at the threshold and frees whole files.
pub const LOG_SLACK_BYTES: u64 = PURGE_THRESHOLD_BYTES + FILE_BYTES;
/// Extension of the folder that holds a damaged log after it was set aside.
const DAMAGED: &str = "damaged";
/// Length of the index in front of each stored entry.
const INDEX_BYTES: usize = 8;

/// An entry in the form that raft-engine needs: a Protobuf message that knows its index. We put the index in front of
/// our own bytes.
struct StoredEntry;

impl MessageExt for StoredEntry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk::<INDEX_BYTES>().map_or(0, |head| u64::from_be_bytes(*head))
    }
}

fn stored_entry(LogEntry { index, frame }: LogEntry) -> BytesValue {
    let mut value = Vec::with_capacity(INDEX_BYTES + frame.len());
    value.extend_from_slice(&index.to_be_bytes());
    value.extend_from_slice(&frame);
    let mut entry = BytesValue::new();
    entry.set_value(value);
    entry
}

/// Each group is one region of the engine.
fn region(group: GroupId) -> u64 {
    u64::from(group.0)
}

struct WriteRequest {
    batch: LogBatch,
    bytes: usize,
    durable: bool,
    completion: Option<Completion>,
}

/// Shared by all groups of a node.
pub(super) struct LogEngine {
    /// `None` once closed, so that the folder's lock is released at a known moment.
    engine: Arc<RwLock<Option<Engine>>>,
    writes: Mutex<Option<mpsc::Sender<WriteRequest>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LogEngine {
    /// Opens and recovers the log in `folder`. Creates the folder if it is missing.
    pub(super) fn open(folder: &Path) -> Result<LogEngine, StorageError> {
        let path = folder.display().to_string();
        let config = Config {
            dir: path.clone(),
            target_file_size: ReadableSize(FILE_BYTES),
            purge_threshold: ReadableSize(PURGE_THRESHOLD_BYTES),
            ..Config::default()
        };
        let failed = |source| StorageError::OpenLog { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let engine = match recover(config.clone()) {
            Err(Unrecoverable::Damaged(what)) => {
                let aside = folder.with_extension(DAMAGED);
                tracing::error!(
                    path,
                    what,
                    aside = %aside.display(),
                    "the Raft log is damaged and was set aside; this node starts with an empty log"
                );
                set_aside(folder, &aside).map_err(|error| failed(error.into()))?;
                recover(config)
            }
            recovered => recovered,
        };
        let engine = engine.map_err(|error| match error {
            Unrecoverable::Damaged(what) => failed(what.into()),
            Unrecoverable::Failed(error) => failed(error.into()),
        })?;
        let engine = Arc::new(RwLock::new(Some(engine)));
        let (writes, requests) = mpsc::channel(WRITE_QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("raft-log-writer".to_owned())
            .spawn({
                let engine = engine.clone();
                move || run_writer(&engine, requests)
            })
            .map_err(|error| failed(format!("cannot start the writer thread: {error}").into()))?;
        Ok(LogEngine { engine, writes: Mutex::new(Some(writes)), writer: Mutex::new(Some(writer)) })
    }

    fn with<R>(&self, look: impl FnOnce(&Engine) -> R) -> Result<R, StorageError> {
        match self.engine.read().as_ref() {
            Some(engine) => Ok(look(engine)),
            None => Err(StorageError::Closed),
        }
    }
}

impl LogStorage for LogEngine {
    fn submit(
        &self,
        write: LogWrite,
        durable: bool,
        completion: Option<Completion>,
    ) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let writes = self.writes.lock().clone().ok_or(StorageError::Closed)?;
            // The caller encodes, because the writer thread serves every group.
            let bytes = write.entry_bytes();
            let batch = batch_of(write).map_err(|error| StorageError::Write(error.into()))?;
            let request = WriteRequest { batch, bytes, durable, completion };
            writes.send(request).await.map_err(|_| StorageError::Closed)
        })
    }

    fn value(&self, group: GroupId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.with(|engine| engine.get(region(group), key.as_bytes()))
    }

    fn first_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.with(|engine| engine.first_index(region(group)))
    }

    fn last_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.with(|engine| engine.last_index(region(group)))
    }

    fn read(&self, group: GroupId, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut entries: Vec<BytesValue> = Vec::new();
        self.with(|engine| engine.fetch_entries_to::<StoredEntry>(region(group), from, to, bytes_max, &mut entries))?
            .map_err(|error| StorageError::Read(error.into()))?;
        Ok(entries.into_iter().map(|mut entry| entry.value.split_off(INDEX_BYTES)).collect())
    }

    fn used_bytes(&self) -> u64 {
        // A closed log holds nothing that a caller could still read.
        self.with(Engine::get_used_size).map_or(0, |bytes| bytes as u64)
    }

    fn purge_files(&self) -> Result<Vec<GroupId>, StorageError> {
        let blocking = self.with(Engine::purge_expired_files)?.map_err(|error| StorageError::Write(error.into()))?;
        // `submit` wrote every region, so each region number is a group number.
        Ok(blocking.into_iter().filter_map(|region| u16::try_from(region).ok().map(GroupId)).collect())
    }

    fn close(&self) {
        drop(self.writes.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the writer thread has already stopped the process.
            let _ = writer.join();
        }
        drop(self.engine.write().take());
    }
}

enum Unrecoverable {
    /// The stored bytes differ from the written bytes.
    Damaged(String),
    /// The disk, the folder or its lock failed.
    Failed(raft_engine::Error),
}

/// Opens the engine and tells damage from other failures. raft-engine cuts off a damaged end of its last file. It
/// reports other damage in one of three ways: an error, a panic (entries that do not continue the entries before
/// them), or an attempt to cut a file that it opened read-only.
fn recover(config: Config) -> Result<Engine, Unrecoverable> {
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| Engine::open(config)));
    match opened
        .map_err(|_| Unrecoverable::Damaged("its entries are not contiguous (see the panic above)".to_owned()))?
    {
        Ok(engine) => Ok(engine),
        Err(error @ (raft_engine::Error::Corruption(_) | raft_engine::Error::Codec(_))) => {
            Err(Unrecoverable::Damaged(error.to_string()))
        }
        Err(raft_engine::Error::Io(error)) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(Unrecoverable::Damaged("the end of a file that is not the last one".to_owned()))
        }
        Err(error) => Err(Unrecoverable::Failed(error)),
    }
}

/// Keeps the damaged bytes for a later investigation, and makes room for an empty log.
fn set_aside(folder: &Path, aside: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(folder, aside)?;
    std::fs::create_dir_all(folder)
}

/// Translates a write into a batch of raft-engine.
fn batch_of(write: LogWrite) -> Result<LogBatch, raft_engine::Error> {
    let region = region(write.group);
    let mut batch = LogBatch::default();
    for operation in write.operations {
        match operation {
            LogOperation::Entries(entries) => {
                let stored: Vec<BytesValue> = entries.into_iter().map(stored_entry).collect();
                batch.add_entries::<StoredEntry>(region, &stored)?;
            }
            LogOperation::Put { key, value } => batch.put(region, key.as_bytes().to_vec(), value)?,
            LogOperation::Delete { key } => batch.delete(region, key.as_bytes().to_vec()),
            LogOperation::ForgetBelow { index } => batch.add_command(region, Command::Compact { index }),
        }
    }
    Ok(batch)
}

fn run_writer(engine: &RwLock<Option<Engine>>, mut requests: mpsc::Receiver<WriteRequest>) {
    let _guard = FailStopOnPanic("writing the Raft log");
    while let Some(first) = requests.blocking_recv() {
        let (mut batch, mut bytes, mut durable) = (first.batch, first.bytes, first.durable);
        let mut completions = vec![first.completion];
        // Writes that queued up during the last fsync share the next one.
        while bytes < MERGED_BYTES_MAX {
            let Ok(mut next) = requests.try_recv() else { break };
            if let Err(error) = batch.merge(&mut next.batch) {
                fail_stop("merging writes to the Raft log", error);
            }
            bytes += next.bytes;
            durable |= next.durable;
            completions.push(next.completion);
        }
        {
            // `close` closes the engine only after this thread has ended. If that ever changes, no write may count as
            // written.
            let engine = engine.read();
            let Some(engine) = engine.as_ref() else { return };
            if let Err(error) = engine.write(&mut batch, durable) {
                fail_stop("writing the Raft log", error);
            }
        }
        if durable {
            fault::point("raft.after_append");
        }
        for completion in completions.into_iter().flatten() {
            completion(Ok(()));
        }
    }
}
