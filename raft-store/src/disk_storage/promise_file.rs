//! What a group has promised, a second time: one small file, overwritten in place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::storage::PromiseStorage;

const NAME: &str = "promises";
/// The record, and its length in the first byte. Below a sector, so that a power cut leaves the old or the new one.
const FILE_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct PromiseFile {
    file: File,
}

impl PromiseFile {
    /// In a group's folder, which exists.
    pub(super) fn open(folder: &Path) -> io::Result<PromiseFile> {
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(NAME))?;
        if file.metadata()?.len() == 0 {
            file.write_all_at(&[0; FILE_BYTES], 0)?;
            file.sync_all()?;
            // The name too: a vote must not be lost with it.
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
            u8::try_from(frame.len()).map_err(|_| io::Error::other("a record of promises has grown too long"))?;
        let mut block = Vec::with_capacity(1 + frame.len());
        block.push(bytes);
        block.extend_from_slice(frame);
        self.file.write_all_at(&block, 0)?;
        if durable { self.file.sync_data() } else { Ok(()) }
    }
}
