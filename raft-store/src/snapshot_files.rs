//! The snapshots of one group on disk: written whole or not at all, checked when read, two kept.
//!
//! *Reads / writes*: `snapshot-<index>-<term>.clicktally` in the group's folder. *Promises*: a file under its final name was
//! fsynced before it got that name, and the name was fsynced before [`SnapshotFiles::save`] returns; a damaged file is noticed
//! by its checksum. *On restart*: the newest valid file counts. The one before it is kept, and the log is purged no further
//! than that one, so a file that rots costs a longer replay and nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clicktally_proto::{codec, fault};
use serde::{Deserialize, Serialize};

use crate::type_config::{Snapshot, SnapshotMeta};

/// The newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;
const SUFFIX: &str = ".clicktally";

/// A snapshot file is one codec frame of this: version byte, checksum, length limit.
#[derive(Serialize, Deserialize)]
struct SnapshotFile {
    meta: SnapshotMeta,
    state: Bytes,
}

/// The group's snapshot folder.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFiles {
    folder: PathBuf,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedFile {
    index: u64,
    term: u64,
    path: PathBuf,
}

impl SnapshotFiles {
    /// Creates the folder and clears files that were never finished.
    pub(crate) fn open(folder: &Path) -> io::Result<SnapshotFiles> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path)?;
            }
        }
        Ok(SnapshotFiles { folder: folder.to_owned() })
    }

    /// Makes a snapshot durable and deletes all but the newest [`SNAPSHOTS_KEPT`]. A meta without a log id is not saved: there
    /// is nothing in such a snapshot.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &Bytes) -> io::Result<()> {
        let Some(last) = meta.last_log_id else { return Ok(()) };
        let frame = codec::encode(&SnapshotFile { meta: meta.clone(), state: state.clone() })
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let name = format!("snapshot-{:020}-{:020}{SUFFIX}", last.index, last.leader_id.term);
        let unfinished = self.folder.join(format!("{name}.tmp"));
        let mut file = File::create(&unfinished)?;
        file.write_all(&frame)?;
        file.sync_all()?;
        drop(file);
        fault::point("snapshot.after_write");
        fs::rename(&unfinished, self.folder.join(name))?;
        // The rename itself must survive a power loss before anything relies on it.
        File::open(&self.folder)?.sync_all()?;
        for old in self.newest_first()?.into_iter().skip(SNAPSHOTS_KEPT) {
            fs::remove_file(old.path)?;
        }
        Ok(())
    }

    /// The newest snapshot that is whole; damaged ones are set aside with a warning.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        for named in self.newest_first()? {
            match codec::decode::<SnapshotFile>(&fs::read(&named.path)?) {
                Ok(SnapshotFile { meta, state }) => return Ok(Some(Snapshot { meta, snapshot: state })),
                Err(error) => {
                    tracing::warn!(path = %named.path.display(), %error, "a snapshot is damaged: falling back to the one before");
                    fs::rename(&named.path, named.path.with_extension("damaged"))?;
                }
            }
        }
        Ok(None)
    }

    /// Up to where the log may be purged: the oldest snapshot kept, once there are [`SNAPSHOTS_KEPT`].
    pub(crate) fn purgeable_index(&self) -> io::Result<Option<u64>> {
        let files = self.newest_first()?;
        Ok(files.get(SNAPSHOTS_KEPT - 1).map(|oldest| oldest.index))
    }

    fn newest_first(&self) -> io::Result<Vec<NamedFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((index, term)) = parse_name(name) else { continue };
            files.push(NamedFile { index, term, path });
        }
        files.sort_by_key(|file| std::cmp::Reverse((file.index, file.term)));
        Ok(files)
    }
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_prefix("snapshot-")?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some((index.parse().ok()?, term.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use openraft::LogId;
    use openraft::impls::leader_id_adv::LeaderId;

    use super::*;

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
        let files = SnapshotFiles::open(folder.path()).unwrap();
        for index in [10, 20, 30] {
            files.save(&meta(index), &Bytes::from(vec![7; 1_000])).unwrap();
        }
        assert_eq!(files.purgeable_index().unwrap(), Some(20));
        assert_eq!(index_of(files.newest().unwrap()), Some(30));

        let newest = files.newest_first().unwrap()[0].path.clone();
        let mut bytes = fs::read(&newest).unwrap();
        bytes[500] ^= 1;
        fs::write(&newest, bytes).unwrap();
        assert_eq!(index_of(files.newest().unwrap()), Some(20));
        assert_eq!(files.purgeable_index().unwrap(), None, "nothing may be purged while only one is left");

        let torn = files.newest_first().unwrap()[0].path.clone();
        let bytes = fs::read(&torn).unwrap();
        fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(index_of(files.newest().unwrap()), None);
    }

    #[test]
    fn an_unfinished_snapshot_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("snapshot-1-1.clicktally.tmp"), b"half").unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        assert!(files.newest().unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
