//! The snapshots of one group. They are checked when they are read, and the newest two are kept.
//!
//! *Reads / writes*: the group's [`SnapshotStorage`]. *Promises*: a damaged snapshot is detected before any of it is
//! used, and is set aside. A snapshot of another format is reported and left untouched. *On restart*: the newest
//! valid snapshot is used. The one before it is kept, and the log is purged only up to that older one. So if the
//! newest snapshot rots, the only cost is a longer replay.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::group_state::{FrozenState, GroupState};
use clicktally_state::snapshot::{self, SnapshotError};

use crate::snapshots::snapshot_meta;
use crate::storage::{SnapshotName, SnapshotReader, SnapshotStorage, SnapshotWriter};
use crate::type_config::SnapshotMeta;

/// The newest snapshot and one fallback.
const SNAPSHOTS_KEPT: usize = 2;

/// The snapshots of one group. Clones share the storage.
#[derive(Clone)]
pub(crate) struct GroupSnapshots {
    group: GroupId,
    storage: Arc<dyn SnapshotStorage>,
    /// The command level of this build: it reads the formats of this level and below.
    level: u16,
    /// Whether a damaged snapshot was found since the process started.
    found_damage: Arc<AtomicBool>,
}

/// A durable snapshot, open for reading.
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) name: SnapshotName,
    pub(crate) reader: Box<dyn SnapshotReader>,
    pub(crate) bytes: u64,
}

/// A complete and decoded snapshot from another node. It is not yet durable under its name.
pub(crate) struct ReceivedSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: GroupState,
    writer: Box<dyn SnapshotWriter>,
}

fn name_of(meta: &SnapshotMeta) -> Option<SnapshotName> {
    meta.last_log_id.map(|last| SnapshotName { index: last.index, term: last.leader_id.term })
}

impl GroupSnapshots {
    pub(crate) fn new(group: GroupId, storage: Arc<dyn SnapshotStorage>, level: u16) -> GroupSnapshots {
        GroupSnapshots { group, storage, level, found_damage: Arc::default() }
    }

    /// Makes a state durable, deletes all snapshots but the newest [`SNAPSHOTS_KEPT`], and returns the size of the
    /// new one in bytes. Does not save a state whose meta has no log id, because such a state is empty.
    pub(crate) fn save(&self, meta: &SnapshotMeta, frozen: &FrozenState) -> Result<Option<u64>, SnapshotError> {
        let Some(name) = name_of(meta) else { return Ok(None) };
        let mut writer = self.storage.create()?;
        let bytes = snapshot_meta::encode(meta, frozen.state(), &mut *writer)?;
        writer.commit(name)?;
        self.remove_old()?;
        Ok(Some(bytes))
    }

    /// Creates a writer for a snapshot from another node.
    pub(crate) fn begin(&self) -> io::Result<Box<dyn SnapshotWriter>> {
        self.storage.create()
    }

    /// Reads a received snapshot back from the storage and decodes it, so that the stored bytes are the checked
    /// bytes.
    pub(crate) fn check(&self, writer: Box<dyn SnapshotWriter>) -> Result<ReceivedSnapshot, SnapshotError> {
        let (meta, state) = snapshot_meta::decode(self.group, &mut *writer.reread()?, self.level)?;
        Ok(ReceivedSnapshot { meta, state, writer })
    }

    /// Makes a received snapshot durable and returns its state.
    pub(crate) fn adopt(&self, received: ReceivedSnapshot) -> Result<GroupState, SnapshotError> {
        let ReceivedSnapshot { meta, state, writer } = received;
        if let Some(name) = name_of(&meta) {
            writer.commit(name)?;
            self.remove_old()?;
        }
        Ok(state)
    }

    /// The state of the newest valid snapshot. Damaged snapshots are set aside with a warning.
    pub(crate) fn newest_state(&self) -> Result<Option<(SnapshotMeta, GroupState)>, SnapshotError> {
        let decode = |name| snapshot_meta::decode(self.group, &mut *self.storage.open(name)?, self.level);
        Ok(self.newest_whole(decode)?.map(|(_, found)| found))
    }

    /// The newest snapshot. Only its first chunk is checked.
    pub(crate) fn newest(&self) -> Result<Option<StoredSnapshot>, SnapshotError> {
        let found = self.newest_whole(|name| self.open(name))?;
        Ok(found.map(|(_, stored)| stored))
    }

    pub(crate) fn open(&self, name: SnapshotName) -> Result<StoredSnapshot, SnapshotError> {
        let mut reader = self.storage.open(name)?;
        let meta = snapshot_meta::read(&mut *reader, self.level)?;
        let bytes = reader.seek(io::SeekFrom::End(0))?;
        reader.rewind()?;
        Ok(StoredSnapshot { meta, name, reader, bytes })
    }

    /// Re-verifies a suspect snapshot and sets it aside if it is damaged.
    pub(crate) fn recheck(&self, name: SnapshotName) -> Result<(), SnapshotError> {
        let verify = |mut reader: Box<dyn SnapshotReader>| snapshot::verify(&mut *reader, self.level);
        match self.storage.open(name).map_err(SnapshotError::from).and_then(verify) {
            Err(SnapshotError::Damaged(reason)) => self.set_aside(name, &reason),
            checked => checked,
        }
    }

    /// Whether a snapshot was set aside since the process started. Then fewer than [`SNAPSHOTS_KEPT`] may be left.
    pub(crate) fn found_damage(&self) -> bool {
        self.found_damage.load(Ordering::Relaxed)
    }

    /// The index up to which the log may be purged: that of the oldest kept snapshot, once there are
    /// [`SNAPSHOTS_KEPT`].
    pub(crate) fn purgeable_index(&self) -> io::Result<Option<u64>> {
        let names = self.newest_first()?;
        Ok(names.get(SNAPSHOTS_KEPT - 1).map(|oldest| oldest.index))
    }

    fn newest_whole<T>(
        &self,
        read: impl Fn(SnapshotName) -> Result<T, SnapshotError>,
    ) -> Result<Option<(SnapshotName, T)>, SnapshotError> {
        for name in self.newest_first()? {
            match read(name) {
                Ok(found) => return Ok(Some((name, found))),
                Err(SnapshotError::Damaged(reason)) => self.set_aside(name, &reason)?,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn set_aside(&self, name: SnapshotName, reason: &str) -> Result<(), SnapshotError> {
        tracing::warn!(group = self.group.0, ?name, reason, "a snapshot is damaged and was set aside");
        self.found_damage.store(true, Ordering::Relaxed);
        Ok(self.storage.set_aside(name)?)
    }

    fn remove_old(&self) -> io::Result<()> {
        for old in self.newest_first()?.into_iter().skip(SNAPSHOTS_KEPT) {
            self.storage.remove(old)?;
        }
        Ok(())
    }

    fn newest_first(&self) -> io::Result<Vec<SnapshotName>> {
        let mut names = self.storage.names()?;
        names.sort_by_key(|name| std::cmp::Reverse(*name));
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use clicktally_proto::command::COMMAND_LEVEL;
    use openraft::LogId;
    use openraft::impls::leader_id_adv::LeaderId;

    use super::*;
    use crate::disk_storage::DiskStorage;
    use crate::storage::Storage;

    const GROUP: GroupId = GroupId(0);

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(LogId::new(LeaderId { term: 1, node_id: 1 }, index)),
            ..SnapshotMeta::default()
        }
    }

    fn index_of(found: Option<(SnapshotMeta, GroupState)>) -> Option<u64> {
        found.and_then(|(meta, _)| meta.last_log_id).map(|last| last.index)
    }

    fn rewrite(storage: &dyn SnapshotStorage, name: SnapshotName, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        storage.open(name).unwrap().read_to_end(&mut bytes).unwrap();
        change(&mut bytes);
        let mut writer = storage.create().unwrap();
        writer.write_all(&bytes).unwrap();
        writer.commit(name).unwrap();
    }

    #[test]
    fn a_damaged_newest_snapshot_is_set_aside_for_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(folder.path()).open_snapshots(GROUP).unwrap();
        let snapshots = GroupSnapshots::new(GROUP, storage.clone(), COMMAND_LEVEL);
        for index in [10, 20, 30] {
            snapshots.save(&meta(index), &GroupState::new(GROUP).freeze()).unwrap();
        }
        assert_eq!(storage.names().unwrap().len(), SNAPSHOTS_KEPT);
        assert_eq!(snapshots.purgeable_index().unwrap(), Some(20));
        assert_eq!(index_of(snapshots.newest_state().unwrap()), Some(30));

        // The end of the snapshot is damaged. Opening does not detect that; reading to the end does.
        let newest = snapshots.newest_first().unwrap()[0];
        rewrite(storage.as_ref(), newest, |bytes| *bytes.last_mut().unwrap() ^= 1);
        assert_eq!(snapshots.newest().unwrap().unwrap().name, newest);
        snapshots.recheck(newest).unwrap();
        assert!(snapshots.found_damage());
        assert_eq!(index_of(snapshots.newest_state().unwrap()), Some(20));
        assert_eq!(
            snapshots.purgeable_index().unwrap(),
            None,
            "the log must not be purged while only one snapshot is left"
        );

        let torn = snapshots.newest_first().unwrap()[0];
        snapshots.recheck(torn).unwrap();
        rewrite(storage.as_ref(), torn, |bytes| bytes.truncate(bytes.len() / 2));
        assert_eq!(index_of(snapshots.newest_state().unwrap()), None);
    }

    #[test]
    fn a_snapshot_of_another_format_is_reported_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(folder.path()).open_snapshots(GROUP).unwrap();
        let snapshots = GroupSnapshots::new(GROUP, storage.clone(), COMMAND_LEVEL);
        snapshots.save(&meta(10), &GroupState::new(GROUP).freeze()).unwrap();
        let name = snapshots.newest_first().unwrap()[0];
        rewrite(storage.as_ref(), name, |bytes| {
            bytes[6] = 9;
            let checksum = crc32fast::hash(&bytes[..8]).to_le_bytes();
            bytes[8..12].copy_from_slice(&checksum);
        });
        assert!(matches!(snapshots.newest_state(), Err(SnapshotError::Format { found: 9, .. })));
        assert_eq!(storage.names().unwrap(), [name]);
    }
}
