//! One raft-engine for all groups of a node: one append-only log, one writer thread, one fsync for everybody who waits.
//!
//! *Reads*: its own folder. *Writes*: its own folder. *Promises*: writes land in the order they were submitted; a durable write
//! is on disk before its completion runs. *On restart*: what was completed is there; of the rest, a prefix.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use clicktally_proto::fault;
use parking_lot::{Mutex, RwLock};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::fail_stop::{FailStopOnPanic, fail_stop};

/// Writes waiting for the writer thread. Each group has at most a few in flight, so this is never the bottleneck.
const WRITE_QUEUE_MAX: usize = 1_024;
/// Writes merged into one fsync stop growing here.
const MERGED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Size of one log file; disk space comes back in units of this.
const FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Above this, files whose entries were all purged are deleted, and the rest of an old file is rewritten.
const PURGE_THRESHOLD_BYTES: u64 = 2 * FILE_BYTES;
/// Bytes of the index in front of each stored entry.
const INDEX_BYTES: usize = 8;

#[derive(Debug, Error)]
pub enum LogEngineError {
    #[error("cannot open the Raft log in {path}: {source}; is its disk full, or another process using it?")]
    Open { path: String, source: raft_engine::Error },
    #[error("cannot start the Raft log's writer thread: {0}")]
    Thread(std::io::Error),
    #[error("the Raft log is closed")]
    Closed,
    #[error("the Raft log cannot be read: {0}")]
    Read(raft_engine::Error),
}

/// An entry as raft-engine wants it: a Protobuf message that knows its index. We put the index in front of our own bytes.
struct StoredEntry;

impl MessageExt for StoredEntry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk::<INDEX_BYTES>().map_or(0, |head| u64::from_be_bytes(*head))
    }
}

/// The frame of one entry, ready for [`Write::entries`].
pub(crate) fn stored_entry(index: u64, frame: &[u8]) -> BytesValue {
    let mut value = Vec::with_capacity(INDEX_BYTES + frame.len());
    value.extend_from_slice(&index.to_be_bytes());
    value.extend_from_slice(frame);
    let mut entry = BytesValue::new();
    entry.set_value(value);
    entry
}

/// Runs on the writer thread; must be short.
pub(crate) type Completion = Box<dyn FnOnce() + Send>;

struct WriteRequest {
    batch: LogBatch,
    bytes: usize,
    durable: bool,
    completion: Option<Completion>,
}

/// Shared by all groups of a node; cheap to clone.
#[derive(Clone)]
pub(crate) struct LogEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` once closed, so that the folder's lock is released at a known moment.
    engine: Arc<RwLock<Option<Engine>>>,
    writes: Mutex<Option<mpsc::Sender<WriteRequest>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LogEngine {
    /// Opens (and recovers) the log in `folder`, which it creates.
    pub(crate) fn open(folder: &Path) -> Result<LogEngine, LogEngineError> {
        let path = folder.display().to_string();
        let config = Config {
            dir: path.clone(),
            target_file_size: ReadableSize(FILE_BYTES),
            purge_threshold: ReadableSize(PURGE_THRESHOLD_BYTES),
            ..Config::default()
        };
        std::fs::create_dir_all(folder)
            .map_err(|e| LogEngineError::Open { path: path.clone(), source: raft_engine::Error::Io(e) })?;
        let engine = Engine::open(config).map_err(|source| LogEngineError::Open { path, source })?;
        let engine = Arc::new(RwLock::new(Some(engine)));
        let (writes, requests) = mpsc::channel(WRITE_QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("raft-log-writer".to_owned())
            .spawn({
                let engine = engine.clone();
                move || run_writer(&engine, requests)
            })
            .map_err(LogEngineError::Thread)?;
        Ok(LogEngine {
            shared: Arc::new(Shared { engine, writes: Mutex::new(Some(writes)), writer: Mutex::new(Some(writer)) }),
        })
    }

    /// Queues a batch; `completion` runs on the writer thread after the batch is written and, if `durable`, fsynced.
    pub(crate) async fn submit(
        &self,
        batch: LogBatch,
        bytes: usize,
        durable: bool,
        completion: Option<Completion>,
    ) -> Result<(), LogEngineError> {
        let writes = self.shared.writes.lock().clone().ok_or(LogEngineError::Closed)?;
        let request = WriteRequest { batch, bytes, durable, completion };
        writes.send(request).await.map_err(|_| LogEngineError::Closed)
    }

    /// Queues a batch and waits until it is on disk.
    pub(crate) async fn write_durably(&self, batch: LogBatch) -> Result<(), LogEngineError> {
        let (done, finished) = oneshot::channel();
        let completion: Completion = Box::new(move || {
            // The waiter may be gone; the write stands either way.
            let _ = done.send(());
        });
        self.submit(batch, 0, true, Some(completion)).await?;
        finished.await.map_err(|_| LogEngineError::Closed)
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&Engine) -> R) -> Result<R, LogEngineError> {
        match self.shared.engine.read().as_ref() {
            Some(engine) => Ok(look(engine)),
            None => Err(LogEngineError::Closed),
        }
    }

    /// The frames of entries `[from, to)` of a region, at most `bytes_max` of them but at least one. An error if one is missing.
    pub(crate) fn read(
        &self,
        region: u64,
        from: u64,
        to: u64,
        bytes_max: Option<usize>,
    ) -> Result<Vec<Vec<u8>>, LogEngineError> {
        let mut entries: Vec<BytesValue> = Vec::new();
        self.with(|engine| engine.fetch_entries_to::<StoredEntry>(region, from, to, bytes_max, &mut entries))?
            .map_err(LogEngineError::Read)?;
        Ok(entries.into_iter().map(|mut entry| entry.value.split_off(INDEX_BYTES)).collect())
    }

    /// Deletes files that hold nothing live. Returns the regions whose old entries block that: snapshot and purge them.
    pub(crate) fn purge_files(&self) -> Result<Vec<u64>, LogEngineError> {
        self.with(Engine::purge_expired_files)?.map_err(LogEngineError::Read)
    }

    /// Finishes queued writes and releases the folder. Idempotent. Blocks for at most one fsync.
    pub(crate) fn close(&self) {
        drop(self.shared.writes.lock().take());
        if let Some(writer) = self.shared.writer.lock().take() {
            // A panic of the writer has already stopped the process.
            let _ = writer.join();
        }
        drop(self.shared.engine.write().take());
    }
}

/// A batch under construction, in raft-engine's terms.
#[derive(Default)]
pub(crate) struct Write {
    batch: LogBatch,
}

impl Write {
    pub(crate) fn entries(&mut self, region: u64, entries: &[BytesValue]) -> Result<(), raft_engine::Error> {
        self.batch.add_entries::<StoredEntry>(region, entries)
    }

    pub(crate) fn put(&mut self, region: u64, key: &[u8], value: Vec<u8>) -> Result<(), raft_engine::Error> {
        self.batch.put(region, key.to_vec(), value)
    }

    pub(crate) fn delete(&mut self, region: u64, key: &[u8]) {
        self.batch.delete(region, key.to_vec());
    }

    /// Forgets entries below `index`.
    pub(crate) fn forget_below(&mut self, region: u64, index: u64) {
        self.batch.add_command(region, raft_engine::Command::Compact { index });
    }

    pub(crate) fn into_batch(self) -> LogBatch {
        self.batch
    }
}

fn run_writer(engine: &RwLock<Option<Engine>>, mut requests: mpsc::Receiver<WriteRequest>) {
    let _guard = FailStopOnPanic("writing the Raft log");
    while let Some(first) = requests.blocking_recv() {
        let (mut batch, mut bytes, mut durable) = (first.batch, first.bytes, first.durable);
        let mut completions = vec![first.completion];
        // Whatever queued up during the last fsync shares the next one.
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
            // Closed only after this thread has ended; should that ever change, nothing may count as written.
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
            completion();
        }
    }
}
