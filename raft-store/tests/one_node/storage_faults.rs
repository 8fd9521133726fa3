//! A failing disk, simulated through the Storage seam. If a log write fails, the node stops at once and acknowledges
//! nothing more. If a snapshot rots, the only cost is a longer replay.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use clicktally_proto::command::Outcome;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::FAIL_STOP_EXIT_CODE;
use clicktally_raft_store::disk_storage::DiskStorage;
use clicktally_raft_store::storage::{
    Completion, LogStorage, LogWrite, PromiseStorage, SnapshotName, SnapshotReader, SnapshotStorage, SnapshotWriter,
    Storage, StorageError,
};
use futures::future::BoxFuture;

use crate::one_node::{
    GROUP, PROPOSALS, assert_only_acknowledged, campaigns, open, propose_all, run_child, set_campaign, store_folder,
};

/// The number of the durable write that fails in [`child`]. The earlier writes also bootstrap the group and elect its
/// leader.
const FAILING_WRITE: &str = "CLICKTALLY_TEST_FAILING_WRITE";

/// A disk with faults that a test can switch on.
struct FaultyStorage {
    disk: DiskStorage,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// The number of durable writes until one fails; 0 means none fails. The failing write is not written at all, and
    /// all later ones succeed. A disk behaves like this after one failed fsync, so a retry would hide the loss.
    durable_writes_until_failure: AtomicU64,
    newest_snapshot_is_damaged: AtomicBool,
    gate: Arc<Gate>,
}

fn faulty(folder: &Path, faults: &Arc<Faults>) -> Arc<dyn Storage> {
    Arc::new(FaultyStorage { disk: DiskStorage::new(folder), faults: faults.clone() })
}

impl Storage for FaultyStorage {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn identity(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.disk.identity()
    }

    fn save_identity(&self, frame: &[u8]) -> Result<(), StorageError> {
        self.disk.save_identity(frame)
    }

    fn open_log(&self) -> Result<Arc<dyn LogStorage>, StorageError> {
        Ok(Arc::new(FaultyLog { disk: self.disk.open_log()?, faults: self.faults.clone() }))
    }

    fn open_snapshots(&self, group: GroupId) -> Result<Arc<dyn SnapshotStorage>, StorageError> {
        Ok(Arc::new(FaultySnapshots { disk: self.disk.open_snapshots(group)?, faults: self.faults.clone() }))
    }

    fn open_promises(&self, group: GroupId) -> Result<Arc<dyn PromiseStorage>, StorageError> {
        self.disk.open_promises(group)
    }
}

struct FaultyLog {
    disk: Arc<dyn LogStorage>,
    faults: Arc<Faults>,
}

impl LogStorage for FaultyLog {
    fn submit(
        &self,
        write: LogWrite,
        durable: bool,
        completion: Option<Completion>,
    ) -> BoxFuture<'_, Result<(), StorageError>> {
        let left = &self.faults.durable_writes_until_failure;
        let fails = durable && left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1);
        match completion {
            Some(completion) if fails => Box::pin(async move {
                completion(Err(StorageError::Write("the disk is gone".into())));
                Ok(())
            }),
            completion => self.disk.submit(write, durable, completion),
        }
    }

    fn value(&self, group: GroupId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.disk.value(group, key)
    }

    fn first_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.disk.first_index(group)
    }

    fn last_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.disk.last_index(group)
    }

    fn read(&self, group: GroupId, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Vec<u8>>, StorageError> {
        self.disk.read(group, from, to, bytes_max)
    }

    fn used_bytes(&self) -> u64 {
        self.disk.used_bytes()
    }

    fn purge_files(&self) -> Result<Vec<GroupId>, StorageError> {
        self.disk.purge_files()
    }

    fn close(&self) {
        self.disk.close();
    }
}

struct FaultySnapshots {
    disk: Arc<dyn SnapshotStorage>,
    faults: Arc<Faults>,
}

impl SnapshotStorage for FaultySnapshots {
    fn names(&self) -> io::Result<Vec<SnapshotName>> {
        self.disk.names()
    }

    fn open(&self, name: SnapshotName) -> io::Result<Box<dyn SnapshotReader>> {
        let mut reader = self.disk.open(name)?;
        let is_newest = self.disk.names()?.into_iter().max() == Some(name);
        if !(is_newest && self.faults.newest_snapshot_is_damaged.swap(false, Ordering::SeqCst)) {
            return Ok(reader);
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn create(&self) -> io::Result<Box<dyn SnapshotWriter>> {
        Ok(Box::new(GatedWriter { disk: self.disk.create()?, gate: self.faults.gate.clone() }))
    }

    fn remove(&self, name: SnapshotName) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn set_aside(&self, name: SnapshotName) -> io::Result<()> {
        self.disk.set_aside(name)
    }
}

/// Blocks the writers of snapshots while it is shut.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicU64,
}

impl Gate {
    fn set_shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.changed.wait_while(is_shut, |is_shut| *is_shut).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

struct GatedWriter {
    disk: Box<dyn SnapshotWriter>,
    gate: Arc<Gate>,
}

impl Write for GatedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gate.pass();
        self.disk.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl SnapshotWriter for GatedWriter {
    fn reread(&self) -> io::Result<Box<dyn SnapshotReader>> {
        self.disk.reread()
    }

    fn commit(self: Box<Self>, name: SnapshotName) -> io::Result<()> {
        self.disk.commit(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn child() {
    propose_all(|folder| {
        let failing = std::env::var(FAILING_WRITE).unwrap().parse().unwrap();
        let faults = Faults { durable_writes_until_failure: AtomicU64::new(failing), ..Faults::default() };
        faulty(&folder, &Arc::new(faults))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_failed_once_stops_the_process_and_is_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (status, acknowledged) = run_child("storage_faults::child", folder.path(), &[(FAILING_WRITE, "40")]);
    assert_eq!(status.code(), Some(FAIL_STOP_EXIT_CODE));
    assert!((1..PROPOSALS).contains(&acknowledged), "{acknowledged} acknowledged before the disk failed");
    assert_only_acknowledged(folder.path(), acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newest_snapshot_that_rots_costs_a_longer_replay_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let open_again = || open(faulty(&store_folder(folder.path()), &faults));

    let store = open_again().await;
    let mut last = 0;
    while store.group(GROUP).unwrap().status().purged.is_none() {
        last += 1;
        assert!(matches!(set_campaign(&store, last).await, Outcome::CampaignSet { .. }));
    }
    store.shutdown().await;

    faults.newest_snapshot_is_damaged.store(true, Ordering::SeqCst);
    let store = open_again().await;
    assert!(!faults.newest_snapshot_is_damaged.load(Ordering::SeqCst), "the node did not read the damaged snapshot");
    let all: Vec<u64> = (1..=last).collect();
    assert_eq!(campaigns(store.group(GROUP).unwrap()).await, all);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_snapshot_is_being_written_entries_are_applied_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = open(faulty(&store_folder(folder.path()), &faults)).await;
    let group = store.group(GROUP).unwrap();
    faults.gate.set_shut(true);
    let mut last = 0;
    // Each campaign is committed and applied before the next is proposed. So the writer that waits at the gate blocks
    // none of the proposals after it.
    let mut at_the_gate = None;
    while at_the_gate.is_none_or(|first| last < first + 50) {
        last += 1;
        assert!(matches!(set_campaign(&store, last).await, Outcome::CampaignSet { .. }));
        assert_eq!(group.read(|state| state.campaigns().len() as u64), last);
        if at_the_gate.is_none() && faults.gate.waiting.load(Ordering::SeqCst) > 0 {
            at_the_gate = Some(last);
        }
    }
    assert_eq!((faults.gate.waiting.load(Ordering::SeqCst), group.status().snapshot), (1, None));
    faults.gate.set_shut(false);
    while group.status().snapshot.is_none() {
        last += 1;
        set_campaign(&store, last).await;
    }
    store.shutdown().await;
}
