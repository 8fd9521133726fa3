//! The second copy of a group's promises: one small file, overwritten in place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::storage::PromiseStorage;

const NAME: &str = "promises";
/// Size of the file: the length of the record in the first byte, then the record. The file is smaller than a sector,
/// so a power cut leaves either the old or the new record.
const FILE_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct PromiseFile {
    file: File,
}

impl PromiseFile {
    /// Opens the file in a group's folder, which must exist.
    pub(super) fn open(folder: &Path) -> io::Result<PromiseFile> {
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(NAME))?;
        if file.metadata()?.len() == 0 {
            file.write_all_at(&[0; FILE_BYTES], 0)?;
            file.sync_all()?;
            // The name must be durable too, or a power loss could lose the vote with it.
            File::open(folder)?.sync_all()?;
        }
        Ok(PromiseFile { file })
    }
}

impl PromiseStorage for PromiseFile {
    fn load(&self) -> io::Result<Vec<u8>> {
        let mut block = vec![0; FILE_BYTES];
        self.file.read_exact_at(&mut block, 0)?;
        let bytes = usize::from(block[0]);
        Ok(block[1..].iter().take(bytes).copied().collect())
    }

    fn store(&self, frame: &[u8], durable: bool) -> io::Result<()> {
        let bytes =
            u8::try_from(frame.len()).map_err(|_| io::Error::other("the record of promises exceeds 255 bytes"))?;
        let mut block = Vec::with_capacity(1 + frame.len());
        block.push(bytes);
        block.extend_from_slice(frame);
        self.file.write_all_at(&block, 0)?;
        if durable { self.file.sync_data() } else { Ok(()) }
    }
}
