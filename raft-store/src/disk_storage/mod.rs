//! The Storage seam on a real disk. Each node has one folder, with raft-engine for the log and plain files beside it.
//! This is the only module of this crate that opens a file.
//!
//! *Reads / writes*: `<folder>/identity`, `<folder>/log` (raft-engine), `<folder>/group-<n>` (snapshots, promises).

#![allow(clippy::disallowed_methods)] // Behind the Storage seam.

mod log_engine;
mod promise_file;
mod snapshot_files;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clicktally_proto::fault;
use clicktally_proto::identity::shard_key::GroupId;

pub use self::log_engine::LOG_SLACK_BYTES;

use self::log_engine::LogEngine;
use self::promise_file::PromiseFile;
use self::snapshot_files::SnapshotFiles;
use crate::storage::{LogStorage, PromiseStorage, SnapshotStorage, Storage, StorageError};

const IDENTITY: &str = "identity";
/// Extension of a file until it is complete.
const UNFINISHED: &str = "tmp";

/// A folder that only this node uses.
#[derive(Debug, Clone)]
pub struct DiskStorage {
    folder: PathBuf,
}

impl DiskStorage {
    /// Does not touch the disk. The folder is created when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> DiskStorage {
        DiskStorage { folder: folder.into() }
    }
}

impl Storage for DiskStorage {
    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    fn identity(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.folder.join(IDENTITY);
        match fs::read(&path) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(folder_error(&path, error)),
        }
    }

    fn save_identity(&self, frame: &[u8]) -> Result<(), StorageError> {
        fs::create_dir_all(&self.folder).map_err(|error| folder_error(&self.folder, error))?;
        write_whole(&self.folder, IDENTITY, frame, "identity.after_write")
            .map_err(|error| folder_error(&self.folder.join(IDENTITY), error))
    }

    fn open_log(&self) -> Result<Arc<dyn LogStorage>, StorageError> {
        Ok(Arc::new(LogEngine::open(&self.folder.join("log"))?))
    }

    fn open_snapshots(&self, group: GroupId) -> Result<Arc<dyn SnapshotStorage>, StorageError> {
        let folder = self.folder.join(format!("group-{}", group.0));
        let files = SnapshotFiles::open(&folder).map_err(|error| folder_error(&folder, error))?;
        Ok(Arc::new(files))
    }

    fn open_promises(&self, group: GroupId) -> Result<Arc<dyn PromiseStorage>, StorageError> {
        let folder = self.folder.join(format!("group-{}", group.0));
        let open = || fs::create_dir_all(&folder).and_then(|()| PromiseFile::open(&folder));
        Ok(Arc::new(open().map_err(|error| folder_error(&folder, error))?))
    }
}

fn folder_error(path: &Path, source: io::Error) -> StorageError {
    StorageError::Folder { path: path.display().to_string(), source }
}

/// Writes a file completely or not at all. A test may kill the process at `point`, before the file gets its name.
fn write_whole(folder: &Path, name: &str, frame: &[u8], point: &str) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.{UNFINISHED}"));
    let mut file = File::create(&unfinished)?;
    file.write_all(frame)?;
    finish(&file, &unfinished, folder, name, point)
}

/// Fsyncs a file and then renames it to `name`. The new name is durable when this returns. A test may kill the
/// process at `point`, between the two steps.
fn finish(file: &File, unfinished: &Path, folder: &Path, name: &str, point: &str) -> io::Result<()> {
    file.sync_all()?;
    fault::point(point);
    fs::rename(unfinished, folder.join(name))?;
    // The rename itself must survive a power loss before other steps rely on it.
    File::open(folder)?.sync_all()
}
