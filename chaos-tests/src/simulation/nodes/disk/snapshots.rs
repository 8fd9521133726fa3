//! The snapshots on a simulated disk. Each is complete or absent, and its bytes may rot.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::Arc;

use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::storage::{SnapshotName, SnapshotReader, SnapshotStorage, SnapshotWriter};

use super::{Held, SimDisk};
use crate::checks::ct19_log_reaches_back::SnapshotReach;

/// The snapshots of one group.
#[derive(Default, Clone)]
pub(super) struct HeldSnapshots {
    pub(super) files: BTreeMap<SnapshotName, Arc<Vec<u8>>>,
    pub(super) reach: SnapshotReach,
}

#[derive(Clone)]
pub(super) struct SimSnapshots {
    pub(super) disk: SimDisk,
    pub(super) life: u64,
    pub(super) group: GroupId,
}

impl SimSnapshots {
    fn with<R>(&self, look: impl FnOnce(&mut Held) -> R) -> io::Result<R> {
        self.disk.with(self.life, look).map_err(io::Error::other)
    }

    fn take(&self, name: SnapshotName) -> io::Result<()> {
        let removed = self.with(|held| held.snapshots.entry(self.group).or_default().files.remove(&name))?;
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SnapshotStorage for SimSnapshots {
    fn names(&self) -> io::Result<Vec<SnapshotName>> {
        self.with(|held| {
            held.snapshots.get(&self.group).map(|all| all.files.keys().copied().collect()).unwrap_or_default()
        })
    }

    fn open(&self, name: SnapshotName) -> io::Result<Box<dyn SnapshotReader>> {
        let bytes = self.with(|held| held.snapshots.get(&self.group).and_then(|all| all.files.get(&name)).cloned())?;
        let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(SharedBytes(bytes))))
    }

    fn create(&self) -> io::Result<Box<dyn SnapshotWriter>> {
        self.with(|_| ())?;
        Ok(Box::new(Unfinished { snapshots: self.clone(), bytes: Vec::new(), was_reread: Cell::new(false) }))
    }

    fn remove(&self, name: SnapshotName) -> io::Result<()> {
        self.take(name)
    }

    fn set_aside(&self, name: SnapshotName) -> io::Result<()> {
        self.take(name)
    }
}

struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Unfinished {
    snapshots: SimSnapshots,
    bytes: Vec<u8>,
    /// Set for what a peer has sent, and only for that.
    was_reread: Cell<bool>,
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for Unfinished {
    fn reread(&self) -> io::Result<Box<dyn SnapshotReader>> {
        self.was_reread.set(true);
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }

    fn commit(self: Box<Self>, name: SnapshotName) -> io::Result<()> {
        let Unfinished { snapshots, bytes, was_reread } = *self;
        let group = snapshots.group;
        snapshots.with(|held| {
            let all = held.snapshots.entry(group).or_default();
            all.files.insert(name, Arc::new(bytes));
            if was_reread.get() { all.reach.received(name.index) } else { all.reach.built(name.index) }
        })
    }
}
