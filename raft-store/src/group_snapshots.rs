//! The snapshots of one group: checked when read, two kept.
//!
//! *Reads / writes*: the group's [`SnapshotStorage`]. *Promises*: a damaged snapshot is noticed by its checksum. *On restart*: the
//! newest valid one counts. The one before it is kept, and the log is purged no further than that one, so a snapshot that rots
//! costs a longer replay and nothing else.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use clicktally_proto::codec;
use serde::{Deserialize, Serialize};

use crate::storage::{SnapshotName, SnapshotStorage};
use crate::type_config::{Snapshot, SnapshotMeta};

/// The newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;

/// A stored snapshot is one codec frame of this: version byte, checksum, length limit.
#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta,
    state: Bytes,
}

/// Clones share the storage.
#[derive(Clone)]
pub(crate) struct GroupSnapshots {
    storage: Arc<dyn SnapshotStorage>,
}

impl GroupSnapshots {
    pub(crate) fn new(storage: Arc<dyn SnapshotStorage>) -> GroupSnapshots {
        GroupSnapshots { storage }
    }

    /// Makes a snapshot durable and deletes all but the newest [`SNAPSHOTS_KEPT`]. A meta without a log id is not saved: there
    /// is nothing in such a snapshot.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &Bytes) -> io::Result<()> {
        let Some(last) = meta.last_log_id else { return Ok(()) };
        let frame = codec::encode(&StoredSnapshot { meta: meta.clone(), state: state.clone() })
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.storage.write(SnapshotName { index: last.index, term: last.leader_id.term }, &frame)?;
        for old in self.newest_first()?.into_iter().skip(SNAPSHOTS_KEPT) {
            self.storage.remove(old)?;
        }
        Ok(())
    }

    /// The newest snapshot that is whole; damaged ones are set aside with a warning.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        for name in self.newest_first()? {
            match codec::decode::<StoredSnapshot>(&self.storage.read(name)?) {
                Ok(StoredSnapshot { meta, state }) => return Ok(Some(Snapshot { meta, snapshot: state })),
                Err(error) => {
                    tracing::warn!(?name, %error, "a snapshot is damaged: falling back to the one before");
                    self.storage.set_aside(name)?;
                }
            }
        }
        Ok(None)
    }

    /// Up to where the log may be purged: the oldest snapshot kept, once there are [`SNAPSHOTS_KEPT`].
    pub(crate) fn purgeable_index(&self) -> io::Result<Option<u64>> {
        let names = self.newest_first()?;
        Ok(names.get(SNAPSHOTS_KEPT - 1).map(|oldest| oldest.index))
    }

    fn newest_first(&self) -> io::Result<Vec<SnapshotName>> {
        let mut names = self.storage.names()?;
        names.sort_by_key(|name| std::cmp::Reverse(*name));
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::shard_key::GroupId;
    use openraft::LogId;
    use openraft::impls::leader_id_adv::LeaderId;

    use super::*;
    use crate::disk_storage::DiskStorage;
    use crate::storage::Storage;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(LogId::new(LeaderId { term: 1, node_id: 1 }, index)),
            ..SnapshotMeta::default()
        }
    }

    fn index_of(snapshot: Option<Snapshot>) -> Option<u64> {
        snapshot.and_then(|snapshot| snapshot.meta.last_log_id).map(|last| last.index)
    }

    #[test]
    fn a_damaged_newest_snapshot_is_set_aside_for_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::new(folder.path()).open_snapshots(GroupId(0)).unwrap();
        let snapshots = GroupSnapshots::new(storage.clone());
        for index in [10, 20, 30] {
            snapshots.save(&meta(index), &Bytes::from(vec![7; 1_000])).unwrap();
        }
        assert_eq!(storage.names().unwrap().len(), SNAPSHOTS_KEPT);
        assert_eq!(snapshots.purgeable_index().unwrap(), Some(20));
        assert_eq!(index_of(snapshots.newest().unwrap()), Some(30));

        let newest = snapshots.newest_first().unwrap()[0];
        let mut bytes = storage.read(newest).unwrap();
        bytes[500] ^= 1;
        storage.write(newest, &bytes).unwrap();
        assert_eq!(index_of(snapshots.newest().unwrap()), Some(20));
        assert_eq!(snapshots.purgeable_index().unwrap(), None, "nothing may be purged while only one is left");

        let torn = snapshots.newest_first().unwrap()[0];
        let bytes = storage.read(torn).unwrap();
        storage.write(torn, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(index_of(snapshots.newest().unwrap()), None);
    }
}
