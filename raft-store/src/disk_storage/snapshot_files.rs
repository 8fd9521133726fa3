//! The snapshots of one group as files of one folder.
//!
//! *Reads / writes*: `snapshot-<index>-<term>.clicktally`. *Promises*: a file under its final name was fsynced before it got that
//! name, and the name was fsynced before [`SnapshotFiles::write`] returns. *On restart*: files that were never finished are gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{UNFINISHED, write_whole};
use crate::storage::{SnapshotName, SnapshotStorage};

const SUFFIX: &str = ".clicktally";

#[derive(Debug)]
pub(super) struct SnapshotFiles {
    folder: PathBuf,
}

impl SnapshotFiles {
    /// Creates the folder and clears files that were never finished.
    pub(super) fn open(folder: &Path) -> io::Result<SnapshotFiles> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path)?;
            }
        }
        Ok(SnapshotFiles { folder: folder.to_owned() })
    }

    fn path(&self, name: SnapshotName) -> PathBuf {
        self.folder.join(file_name(name))
    }
}

impl SnapshotStorage for SnapshotFiles {
    fn names(&self) -> io::Result<Vec<SnapshotName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        Ok(names)
    }

    fn read(&self, name: SnapshotName) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn write(&self, name: SnapshotName, frame: &[u8]) -> io::Result<()> {
        write_whole(&self.folder, &file_name(name), frame, "snapshot.after_write")
    }

    fn remove(&self, name: SnapshotName) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn set_aside(&self, name: SnapshotName) -> io::Result<()> {
        let path = self.path(name);
        fs::rename(&path, path.with_extension("damaged"))
    }
}

fn file_name(name: SnapshotName) -> String {
    format!("snapshot-{:020}-{:020}{SUFFIX}", name.index, name.term)
}

fn parse_name(name: &str) -> Option<SnapshotName> {
    let (index, term) = name.strip_prefix("snapshot-")?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some(SnapshotName { index: index.parse().ok()?, term: term.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_snapshot_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("snapshot-1-1.clicktally.tmp"), b"half").unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        assert!(files.names().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_snapshot_is_found_by_its_name_until_it_is_set_aside_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        let (older, newer) = (SnapshotName { index: 9, term: 2 }, SnapshotName { index: 10, term: 1 });
        for name in [older, newer] {
            files.write(name, format!("{name:?}").as_bytes()).unwrap();
        }
        let mut names = files.names().unwrap();
        names.sort();
        assert_eq!(names, [older, newer]);
        assert_eq!(files.read(newer).unwrap(), format!("{newer:?}").as_bytes());
        files.set_aside(newer).unwrap();
        files.remove(older).unwrap();
        assert!(files.names().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "what was set aside is still there to look at");
    }
}
