//! Reads chunks, one at a time, and uses none whose checksum is wrong.

use std::io::{self, Read};

use clicktally_proto::codec;
use clicktally_proto::fault::{Mutant, is_broken};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zstd::bulk::Decompressor;

use super::{
    CHUNK_BYTES_MAX, CHUNK_HEAD_BYTES, ChunkKind, End, FORMAT_MIN, MAGIC, OPENING_BYTES, SnapshotCounts, SnapshotError,
    damaged, format,
};

pub(super) struct ChunkReader<'a> {
    source: &'a mut dyn Read,
    decompressor: Decompressor<'static>,
    digest: Sha256,
    /// The format that the snapshot was written in.
    pub(super) format: u16,
    /// What was read so far; the caller counts what it decodes.
    pub(super) counts: SnapshotCounts,
}

/// A chunk whose checksum is right; not decompressed yet.
pub(super) struct Chunk {
    pub(super) kind: ChunkKind,
    raw_bytes: usize,
    stored: Vec<u8>,
}

impl ChunkReader<'_> {
    /// Reads the opening, as a build of this command `level`.
    pub(super) fn begin(source: &mut dyn Read, level: u16) -> Result<ChunkReader<'_>, SnapshotError> {
        let (decompressor, counts) = (Decompressor::new()?, SnapshotCounts::default());
        let mut reader = ChunkReader { source, decompressor, digest: Sha256::new(), format: 0, counts };
        let opening: [u8; OPENING_BYTES] = reader.take()?;
        let (named, checksum) = opening.split_at(OPENING_BYTES - 4);
        if &named[..MAGIC.len()] != MAGIC || checksum != crc32fast::hash(named).to_le_bytes() {
            return Err(damaged("it does not open like a snapshot"));
        }
        let (found, newest) =
            (u16::from_le_bytes([named[MAGIC.len()], named[MAGIC.len() + 1]]), format::newest_of_level(level));
        if !(FORMAT_MIN..=newest).contains(&found) {
            return Err(SnapshotError::Format { found, newest });
        }
        reader.format = found;
        reader.digest.update(opening);
        Ok(reader)
    }

    /// The next chunk before the end; `None` once the end has come and everything agrees with it.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, SnapshotError> {
        let head: [u8; CHUNK_HEAD_BYTES] = self.take()?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let lengths = (usize::try_from(number(1)), usize::try_from(number(5)));
        let (Ok(raw_bytes), Ok(stored_bytes)) = lengths else { return Err(damaged("a chunk is too long")) };
        // Checked before anything of that size is allocated. What does not compress grows a little.
        if raw_bytes > CHUNK_BYTES_MAX || stored_bytes > CHUNK_BYTES_MAX + CHUNK_BYTES_MAX / 64 {
            return Err(damaged(format!("a chunk claims to have {raw_bytes} bytes, {stored_bytes} of them stored")));
        }
        let mut stored = vec![0; stored_bytes];
        self.source.read_exact(&mut stored).map_err(torn)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head[..CHUNK_HEAD_BYTES - 4]);
        checksum.update(&stored);
        if checksum.finalize() != number(9) && !is_broken(Mutant::ChecksumUnchecked) {
            return Err(damaged(format!("chunk {} has a wrong checksum", self.counts.chunks)));
        }
        let kind = ChunkKind::of(head[0]).ok_or_else(|| damaged(format!("there are no chunks of kind {}", head[0])))?;
        let chunk = Chunk { kind, raw_bytes, stored };
        if kind == ChunkKind::End {
            self.finish(&chunk)?;
            return Ok(None);
        }
        self.digest.update(head);
        self.digest.update(&chunk.stored);
        self.counts.chunks += 1;
        Ok(Some(chunk))
    }

    pub(super) fn contents<T: DeserializeOwned>(&mut self, chunk: &Chunk) -> Result<T, SnapshotError> {
        let frame = self.frame(chunk)?;
        codec::decode(&frame).map_err(|error| SnapshotError::of_contents(&format!("a {:?} chunk", chunk.kind), error))
    }

    /// Its contents as they were encoded.
    pub(super) fn frame(&mut self, chunk: &Chunk) -> Result<Vec<u8>, SnapshotError> {
        let frame = self.decompressor.decompress(&chunk.stored, chunk.raw_bytes);
        frame.map_err(|error| damaged(format!("a {:?} chunk: {error}", chunk.kind)))
    }

    /// What the end says must be what was read, and nothing may follow it.
    fn finish(&mut self, chunk: &Chunk) -> Result<(), SnapshotError> {
        let End { counts, digest } = self.contents(chunk)?;
        let is_whole = digest == <[u8; 32]>::from(self.digest.clone().finalize());
        if !is_whole && !is_broken(Mutant::ChecksumUnchecked) {
            return Err(damaged("the digest at its end is not that of what comes before"));
        }
        if counts.chunks != self.counts.chunks {
            return Err(damaged(format!("{} chunks of {}", self.counts.chunks, counts.chunks)));
        }
        self.counts = counts;
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(damaged("something follows its end")),
        }
    }

    fn take<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], SnapshotError> {
        let mut bytes = [0; BYTES];
        self.source.read_exact(&mut bytes).map_err(torn)?;
        Ok(bytes)
    }
}

fn torn(error: io::Error) -> SnapshotError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is torn: its end is missing"),
        _ => error.into(),
    }
}
