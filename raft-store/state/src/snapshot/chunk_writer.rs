//! Writes chunks, one at a time.

use std::io::Write;

use clicktally_proto::codec;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

use super::{CHUNK_BYTES_MAX, CHUNK_HEAD_BYTES, ChunkKind, End, MAGIC, SnapshotCounts, SnapshotError, ZSTD_LEVEL};

pub(super) struct ChunkWriter<'a> {
    sink: &'a mut dyn Write,
    compressor: Compressor<'static>,
    digest: Sha256,
    pub(super) counts: SnapshotCounts,
    bytes: u64,
}

impl ChunkWriter<'_> {
    /// Writes the opening.
    pub(super) fn begin(sink: &mut dyn Write, format: u16) -> Result<ChunkWriter<'_>, SnapshotError> {
        let compressor = Compressor::new(ZSTD_LEVEL)?;
        let mut writer =
            ChunkWriter { sink, compressor, digest: Sha256::new(), counts: SnapshotCounts::default(), bytes: 0 };
        let mut opening = MAGIC.to_vec();
        opening.extend_from_slice(&format.to_le_bytes());
        opening.extend_from_slice(&crc32fast::hash(&opening).to_le_bytes());
        writer.put(&opening)?;
        Ok(writer)
    }

    pub(super) fn chunk<T: Serialize>(&mut self, kind: ChunkKind, contents: &T) -> Result<(), SnapshotError> {
        self.frame(kind, &codec::encode(contents).map_err(SnapshotError::Contents)?)
    }

    /// Writes a chunk whose contents are encoded already.
    pub(super) fn frame(&mut self, kind: ChunkKind, frame: &[u8]) -> Result<(), SnapshotError> {
        assert!(frame.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes: {kind:?}", frame.len());
        let stored = self.compressor.compress(frame)?;
        let mut head = Vec::with_capacity(CHUNK_HEAD_BYTES);
        head.push(kind as u8);
        for length in [frame.len(), stored.len()] {
            let length = u32::try_from(length).map_err(|_| super::damaged("a chunk is too long"))?;
            head.extend_from_slice(&length.to_le_bytes());
        }
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        checksum.update(&stored);
        head.extend_from_slice(&checksum.finalize().to_le_bytes());
        self.put(&head)?;
        self.put(&stored)?;
        self.counts.chunks += 1;
        Ok(())
    }

    /// Writes the end. Bytes written, all in all.
    pub(super) fn end(mut self) -> Result<u64, SnapshotError> {
        let digest = self.digest.clone().finalize().into();
        self.chunk(ChunkKind::End, &End { counts: self.counts, digest })?;
        self.sink.flush()?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sink.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
