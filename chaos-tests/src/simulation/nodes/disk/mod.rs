//! A disk that outlives its node. Unsynced writes may be lost, an fsync takes time or fails, and stored data may rot.
//!
//! It keeps two images of the log: the synced one, and the written one, which readers see. A killed node leaves
//! everything written. A node that loses power leaves everything synced, and a prefix of the rest. A failed fsync has
//! discarded its data, and everything behind it on the disk is unreadable from then on: a later successful fsync
//! changes nothing.

mod log;
mod log_image;
mod promises;
mod snapshots;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::storage::{
    Completion, LogOperation, LogStorage, LogWrite, PromiseStorage, SnapshotStorage, Storage, StorageError,
};
use parking_lot::Mutex;

use self::log::SimLogStorage;
use self::log_image::LogImage;
use self::promises::{PromiseImage, SimPromises};
use self::snapshots::{HeldSnapshots, SimSnapshots};
use crate::checks::Violation;
use crate::simulation::random::Stream;

/// How the end of a process leaves the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    PowerLost,
}

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rot {
    LogMiddle,
    Vote,
    NewestSnapshot,
}

/// Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    held: Arc<Mutex<Held>>,
}

struct Held {
    node: NodeId,
    random: Stream,
    /// The life of the node that the disk is attached to; other lives find it closed.
    life: u64,
    identity: Option<Vec<u8>>,
    synced: LogImage,
    written: LogImage,
    /// The writes in `written` but not in `synced`, in order.
    unsynced: Vec<LogWrite>,
    queue: Vec<Queued>,
    is_flushing: bool,
    /// An fsync has failed: nothing reaches `synced` any more.
    is_broken: bool,
    snapshots: BTreeMap<GroupId, HeldSnapshots>,
    promises: BTreeMap<GroupId, PromiseImage>,
    /// How many microseconds an fsync takes: drawn from this range.
    sync_us: (u64, u64),
    /// The next fsync fails.
    fails_next: bool,
    /// The log has rotted: the node must be replaced sooner or later.
    is_rotten: bool,
    syncs: u64,
    /// Copies of the folder, oldest first.
    backups: VecDeque<Backup>,
    /// One of the copies was restored, and no life has opened it yet.
    is_restored: bool,
    /// It was told to forget entries that it may need.
    violation: Option<Violation>,
}

/// A copy of the whole disk at one time.
struct Backup {
    log: LogImage,
    snapshots: BTreeMap<GroupId, HeldSnapshots>,
    promises: BTreeMap<GroupId, PromiseImage>,
}

struct Queued {
    write: LogWrite,
    durable: bool,
    completion: Option<Completion>,
}

/// The duration of an fsync of a healthy disk.
const SYNC_US: (u64, u64) = (200, 3_000);
/// At most this many forgotten entries come back in a recovery.
const BROUGHT_BACK_MAX: u64 = 8;
/// Copies of the folder that are kept.
const BACKUPS_MAX: usize = 4;

impl SimDisk {
    pub fn new(node: NodeId, random: Stream) -> SimDisk {
        let held = Held {
            node,
            random,
            life: 0,
            identity: None,
            synced: LogImage::default(),
            written: LogImage::default(),
            unsynced: Vec::new(),
            queue: Vec::new(),
            is_flushing: false,
            is_broken: false,
            snapshots: BTreeMap::new(),
            promises: BTreeMap::new(),
            sync_us: SYNC_US,
            fails_next: false,
            is_rotten: false,
            syncs: 0,
            backups: VecDeque::new(),
            is_restored: false,
            violation: None,
        };
        SimDisk { held: Arc::new(Mutex::new(held)) }
    }

    /// For the next life of the node.
    pub fn attach(&self) -> Arc<dyn Storage> {
        let mut held = self.held.lock();
        held.life += 1;
        Arc::new(Attached { disk: self.clone(), life: held.life })
    }

    /// The node ends now. Its later writes do not reach the disk.
    pub fn detach(&self, end: End) {
        let mut held = self.held.lock();
        held.life += 1;
        held.end(end);
    }

    pub(super) fn set_sync(&self, micros: Option<(u64, u64)>) {
        self.held.lock().sync_us = micros.unwrap_or(SYNC_US);
    }

    pub fn fail_next_sync(&self) {
        self.held.lock().fails_next = true;
    }

    /// Replaces the disk with a new, empty one.
    pub(super) fn wipe(&self) {
        let mut held = self.held.lock();
        held.identity = None;
        (held.synced, held.written) = (LogImage::default(), LogImage::default());
        held.unsynced.clear();
        held.snapshots.clear();
        held.promises.clear();
        held.backups.clear();
        (held.is_broken, held.is_rotten, held.is_restored) = (false, false, false);
    }

    /// Copies the folder.
    pub(super) fn back_up(&self) {
        let mut held = self.held.lock();
        let Held { written, snapshots, promises, .. } = &*held;
        let backup = Backup { log: written.clone(), snapshots: snapshots.clone(), promises: promises.clone() };
        if held.backups.len() == BACKUPS_MAX {
            held.backups.pop_front();
        }
        held.backups.push_back(backup);
    }

    /// The end of a group's log in each copy.
    pub(super) fn backup_ends(&self, group: GroupId) -> Vec<Option<u64>> {
        self.held.lock().backups.iter().map(|backup| backup.log.last_index(group)).collect()
    }

    /// Restores a copy: log, snapshots and promises are those of an earlier time.
    pub(super) fn restore(&self, backup: usize) {
        let mut held = self.held.lock();
        let Some(Backup { log, snapshots, promises }) = held.backups.remove(backup) else { return };
        (held.synced, held.written) = (log.clone(), log);
        (held.snapshots, held.promises) = (snapshots, promises);
        held.unsynced.clear();
        held.backups.clear();
        (held.is_rotten, held.is_restored) = (true, true);
    }

    /// Returns true if it was restored since the last life of the node.
    pub(super) fn take_restored(&self) -> bool {
        std::mem::take(&mut self.held.lock().is_restored)
    }

    /// Returns true if a snapshot has just replaced all entries of a group.
    pub(super) fn is_log_gone(&self, group: GroupId) -> bool {
        self.held.lock().written.is_gone(group)
    }

    /// Flips a bit. Returns false if there is nothing that could rot.
    pub(super) fn rot(&self, group: GroupId, rot: Rot) -> bool {
        let mut held = self.held.lock();
        let Held { synced, written, random, snapshots, .. } = &mut *held;
        let flip = |bytes: &[u8], random: &mut Stream| {
            let mut bytes = bytes.to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            bytes
        };
        if rot == Rot::NewestSnapshot {
            let newest = snapshots.get_mut(&group).and_then(|all| all.files.last_entry());
            return newest.map(|mut found| *found.get_mut() = Arc::new(flip(found.get(), random))).is_some();
        }
        let Some(image) = written.groups.get_mut(&group) else { return false };
        let rotten = match rot {
            Rot::LogMiddle => {
                // Not the last entry, which would look like a torn tail.
                let inner = image.entries.len().saturating_sub(1);
                let Some((index, frame)) = image.entries.iter().take(inner).nth(random.below(inner as u64) as usize)
                else {
                    return false;
                };
                let (index, frame) = (*index, flip(frame, random));
                image.entries.insert(index, frame.into()).is_some()
            }
            Rot::Vote => {
                let Some(vote) = image.values.get("vote").map(|vote| flip(vote, random)) else { return false };
                image.values.insert("vote", vote.into()).is_some()
            }
            Rot::NewestSnapshot => false,
        };
        *synced = written.clone();
        held.is_rotten |= rotten;
        rotten
    }

    pub(super) fn is_rotten(&self) -> bool {
        self.held.lock().is_rotten
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.held.lock().violation.clone()
    }

    /// Fsyncs carried out, for the trace.
    pub(super) fn syncs(&self) -> u64 {
        self.held.lock().syncs
    }
}

impl Held {
    fn end(&mut self, end: End) {
        let queued: Vec<LogWrite> = self.queue.drain(..).map(|queued| queued.write).collect();
        let (kept, in_doubt) = match end {
            _ if self.is_broken => (Vec::new(), Vec::new()),
            End::Killed => (std::mem::take(&mut self.unsynced), queued),
            End::PowerLost => (Vec::new(), self.unsynced.drain(..).chain(queued).collect()),
        };
        let survivors = self.random.below(in_doubt.len() as u64 + 1) as usize;
        for write in kept.iter().chain(&in_doubt[..survivors]) {
            self.synced.apply(write);
        }
        if end == End::PowerLost {
            self.promises.values_mut().for_each(|promises| promises.lose_power(&mut self.random));
        }
        let back = self.random.below(BROUGHT_BACK_MAX + 1) as usize;
        self.synced.bring_back(back);
        self.written = self.synced.clone();
        self.unsynced.clear();
        (self.is_flushing, self.is_broken, self.fails_next) = (false, false, false);
    }

    /// Carries out all queued writes. Returns the completions, each with the success of its write.
    fn flush(&mut self) -> Vec<(Completion, bool)> {
        let queue = std::mem::take(&mut self.queue);
        let is_sync = queue.iter().any(|queued| queued.durable);
        let fails = is_sync && std::mem::take(&mut self.fails_next);
        let mut completions = Vec::new();
        for Queued { write, completion, .. } in queue {
            self.check_reach(&write);
            self.written.apply(&write);
            self.unsynced.push(write);
            completions.extend(completion.map(|completion| (completion, !fails)));
        }
        if is_sync {
            self.syncs += 1;
            self.is_broken |= fails;
            let unsynced = std::mem::take(&mut self.unsynced);
            if !self.is_broken {
                unsynced.iter().for_each(|write| self.synced.apply(write));
            }
        }
        completions
    }

    /// Checks CT-19 before a write is carried out. If no entry is left, a snapshot has replaced the log, or the log
    /// begins anew.
    fn check_reach(&mut self, write: &LogWrite) {
        let mut last = self.written.last_index(write.group);
        for operation in &write.operations {
            match operation {
                LogOperation::Entries(entries) => last = entries.last().map(|entry| entry.index).or(last),
                LogOperation::ForgetBelow { index } if last >= Some(*index) => {
                    let reach = &self.snapshots.entry(write.group).or_default().reach;
                    self.violation = self.violation.take().or_else(|| reach.check(index.saturating_sub(1)));
                }
                LogOperation::ForgetBelow { .. } => last = None,
                LogOperation::Put { .. } | LogOperation::Delete { .. } => {}
            }
        }
    }
}

/// One life's view of the disk.
struct Attached {
    disk: SimDisk,
    life: u64,
}

impl Attached {
    fn with<R>(&self, look: impl FnOnce(&mut Held) -> R) -> Result<R, StorageError> {
        self.disk.with(self.life, look)
    }
}

impl SimDisk {
    fn with<R>(&self, life: u64, look: impl FnOnce(&mut Held) -> R) -> Result<R, StorageError> {
        let mut held = self.held.lock();
        if held.life == life { Ok(look(&mut held)) } else { Err(StorageError::Closed) }
    }

    /// Runs until the queue is empty. Ends with the life.
    async fn flush_all(self, life: u64) {
        loop {
            let draw = |held: &mut Held| {
                let (least, most) = held.sync_us;
                held.random.between(least, most)
            };
            let Ok(micros) = self.with(life, draw) else { return };
            tokio::time::sleep(Duration::from_micros(micros)).await;
            let Ok(completions) = self.with(life, Held::flush) else { return };
            for (completion, stands) in completions {
                let failed = || StorageError::Write("an fsync has failed".into());
                completion(if stands { Ok(()) } else { Err(failed()) });
            }
            let is_idle = self.with(life, |held| {
                held.is_flushing = !held.queue.is_empty();
                !held.is_flushing
            });
            if is_idle.unwrap_or(true) {
                return;
            }
        }
    }
}

impl Storage for Attached {
    fn place(&self) -> String {
        format!("the disk of node {}", self.disk.held.lock().node)
    }

    fn identity(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.with(|held| held.identity.clone())
    }

    fn save_identity(&self, frame: &[u8]) -> Result<(), StorageError> {
        self.with(|held| held.identity = Some(frame.to_vec()))
    }

    fn open_log(&self) -> Result<Arc<dyn LogStorage>, StorageError> {
        self.with(|_| ())?;
        Ok(Arc::new(SimLogStorage { disk: self.disk.clone(), life: self.life }))
    }

    fn open_snapshots(&self, group: GroupId) -> Result<Arc<dyn SnapshotStorage>, StorageError> {
        self.with(|_| ())?;
        Ok(Arc::new(SimSnapshots { disk: self.disk.clone(), life: self.life, group }))
    }

    fn open_promises(&self, group: GroupId) -> Result<Arc<dyn PromiseStorage>, StorageError> {
        self.with(|_| ())?;
        Ok(Arc::new(SimPromises { disk: self.disk.clone(), life: self.life, group }))
    }
}

#[cfg(test)]
mod tests {
    use clicktally_raft_store::storage::LogEntry;

    use super::*;
    use crate::simulation::random::Seed;

    const GROUP: GroupId = GroupId(0);

    fn append(disk: &SimDisk, index: u64) {
        let entries = LogOperation::Entries(vec![LogEntry { index, frame: vec![0] }]);
        let mut held = disk.held.lock();
        held.queue.push(Queued {
            write: LogWrite { group: GROUP, operations: vec![entries] },
            durable: true,
            completion: None,
        });
        held.flush();
    }

    #[test]
    fn a_restored_folder_is_that_of_the_day_it_was_copied_with_its_promises() {
        let disk = SimDisk::new(1, Seed(1).stream("disk"));
        let storage = disk.attach();
        let promises = storage.open_promises(GROUP).unwrap();
        append(&disk, 1);
        promises.store(b"old", true).unwrap();
        disk.back_up();
        append(&disk, 2);
        promises.store(b"new", true).unwrap();
        assert_eq!(disk.backup_ends(GROUP), [Some(1)]);
        disk.detach(End::Killed);
        disk.restore(0);
        let storage = disk.attach();
        assert_eq!(storage.open_log().unwrap().last_index(GROUP).unwrap(), Some(1));
        assert_eq!(storage.open_promises(GROUP).unwrap().load().unwrap(), b"old");
        assert!(disk.is_rotten() && disk.take_restored() && !disk.take_restored());
        disk.wipe();
        assert!(!disk.is_rotten() && disk.backup_ends(GROUP).is_empty());
    }
}
