//! The snapshots of one group, stored as files of one folder.
//!
//! *Reads / writes*: `snapshot-<index>-<term>.clicktally`, `unfinished-<n>.tmp`. *Promises*: a file is fsynced before
//! it gets its final name, and that name is fsynced before [`SnapshotWriter::commit`] returns. *On restart*:
//! [`SnapshotFiles::open`] has deleted the unfinished files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{UNFINISHED, finish};
use crate::storage::{SnapshotName, SnapshotReader, SnapshotStorage, SnapshotWriter};

const SUFFIX: &str = ".clicktally";
/// The writer fsyncs a file each time it has written this many bytes. One fsync of the whole file at the end would
/// delay the fsyncs of the log.
const SYNC_EVERY_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct SnapshotFiles {
    folder: PathBuf,
    /// Numbers the unfinished files, so that two concurrent writers use different names.
    begun: AtomicU64,
}

impl SnapshotFiles {
    /// Creates the folder and deletes unfinished files.
    pub(super) fn open(folder: &Path) -> io::Result<SnapshotFiles> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path)?;
            }
        }
        Ok(SnapshotFiles { folder: folder.to_owned(), begun: AtomicU64::new(0) })
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

    fn open(&self, name: SnapshotName) -> io::Result<Box<dyn SnapshotReader>> {
        Ok(Box::new(File::open(self.path(name))?))
    }

    fn create(&self) -> io::Result<Box<dyn SnapshotWriter>> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("unfinished-{number}.{UNFINISHED}"));
        let file = File::create(&path)?;
        Ok(Box::new(UnfinishedFile { folder: self.folder.clone(), path, file, unsynced: 0, is_named: false }))
    }

    fn remove(&self, name: SnapshotName) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn set_aside(&self, name: SnapshotName) -> io::Result<()> {
        let path = self.path(name);
        fs::rename(&path, path.with_extension("damaged"))
    }
}

/// A snapshot that is being written to the disk.
#[derive(Debug)]
struct UnfinishedFile {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes written since the last fsync.
    unsynced: usize,
    is_named: bool,
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SnapshotWriter for UnfinishedFile {
    fn reread(&self) -> io::Result<Box<dyn SnapshotReader>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn commit(mut self: Box<Self>, name: SnapshotName) -> io::Result<()> {
        finish(&self.file, &self.path, &self.folder, &file_name(name), "snapshot.after_write")?;
        self.is_named = true;
        Ok(())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.is_named
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(
                %error,
                path = %self.path.display(),
                "cannot delete an unfinished snapshot; the next start deletes it"
            );
        }
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
    use std::io::Read;

    use super::*;

    const OLDER: SnapshotName = SnapshotName { index: 9, term: 2 };
    const NEWER: SnapshotName = SnapshotName { index: 10, term: 1 };

    fn write(files: &SnapshotFiles, name: SnapshotName, text: &str) {
        let mut writer = files.create().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.commit(name).unwrap();
    }

    fn text(mut reader: Box<dyn SnapshotReader>) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn an_unfinished_snapshot_is_not_one_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("unfinished-0.tmp"), b"half").unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        assert_eq!(files_in(folder.path()), 0);

        let (mut one, mut other) = (files.create().unwrap(), files.create().unwrap());
        one.write_all(b"one").unwrap();
        other.write_all(b"other").unwrap();
        assert!(files.names().unwrap().is_empty());
        assert_eq!(
            (text(one.reread().unwrap()), text(other.reread().unwrap())),
            ("one".to_owned(), "other".to_owned())
        );
        drop(one);
        assert_eq!(files_in(folder.path()), 1);
        other.commit(NEWER).unwrap();
        assert_eq!((files.names().unwrap(), files_in(folder.path())), (vec![NEWER], 1));
    }

    #[test]
    fn a_snapshot_is_found_by_its_name_until_it_is_set_aside_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        write(&files, OLDER, "older");
        write(&files, NEWER, "newer");
        let mut names = files.names().unwrap();
        names.sort();
        assert_eq!(names, [OLDER, NEWER]);
        let opened = files.open(OLDER).unwrap();
        files.set_aside(NEWER).unwrap();
        files.remove(OLDER).unwrap();
        assert!(files.names().unwrap().is_empty());
        assert_eq!(text(opened), "older", "an open reader can read a removed snapshot to its end");
        assert_eq!(files_in(folder.path()), 1, "the snapshot that was set aside still exists");
    }
}
