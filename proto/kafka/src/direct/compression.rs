//! Decompresses the records of a batch, in each way that Kafka's producers compress them.

use std::io::{Cursor, Read};

use bytes::Bytes;

use super::record_batch::BatchError;

/// The largest batch after decompression: bounds the time that a small batch can ask for. Producers fill batches of a
/// megabyte.
pub(super) const BATCH_DECOMPRESSED_BYTES_MAX: u64 = 1 << 30;
/// The format copies at most 64 bytes by three.
const SNAPPY_RATIO_MAX: usize = 22;

/// Java producers frame Snappy's blocks like this. librdkafka writes one block without a frame.
const SNAPPY_FRAME_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// The magic bytes and two version numbers.
const SNAPPY_FRAME_HEADER_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// By the three lowest bits of a batch's attributes. `None`: not compressed.
    pub(super) fn of_attributes(attributes: i16) -> Result<Option<Codec>, BatchError> {
        match attributes & 0b111 {
            0 => Ok(None),
            1 => Ok(Some(Codec::Gzip)),
            2 => Ok(Some(Codec::Snappy)),
            3 => Ok(Some(Codec::Lz4)),
            4 => Ok(Some(Codec::Zstd)),
            codec => Err(BatchError::UnknownCodec { codec }),
        }
    }

    /// Decompresses what producers wrote with this codec.
    pub(super) fn open(self, compressed: Bytes) -> Result<Decompressor, BatchError> {
        let input = Cursor::new(compressed);
        let output: Box<dyn Read + Send> = match self {
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?),
            Codec::Snappy => Box::new(SnappyBlocks::new(input.into_inner()).map_err(damaged)?),
        };
        Ok(Decompressor { output, bytes: 0 })
    }
}

/// Hands over the records of a batch piece by piece, so that a small batch cannot ask for much memory.
pub(super) struct Decompressor {
    output: Box<dyn Read + Send>,
    /// Decompressed so far.
    bytes: u64,
}

impl Decompressor {
    /// Appends the next bytes to `into`, at most `bytes_max`. Returns whether these were the last ones.
    pub(super) fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Result<bool, BatchError> {
        let read = (&mut self.output).take(bytes_max as u64).read_to_end(into).map_err(damaged)?;
        self.count(read as u64)?;
        Ok(read < bytes_max)
    }

    /// Passes over the next bytes.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), BatchError> {
        let limited = bytes.min(BATCH_DECOMPRESSED_BYTES_MAX + 1);
        let skipped = std::io::copy(&mut (&mut self.output).take(limited), &mut std::io::sink()).map_err(damaged)?;
        self.count(skipped)?;
        if skipped == bytes { Ok(()) } else { Err(BatchError::EndsEarly) }
    }

    fn count(&mut self, bytes: u64) -> Result<(), BatchError> {
        self.bytes += bytes;
        let limit = BATCH_DECOMPRESSED_BYTES_MAX;
        if self.bytes > limit { Err(BatchError::Blown { limit }) } else { Ok(()) }
    }
}

/// Decompresses Snappy, one block at a time. A block that is not framed is decompressed as a whole: its format has no
/// pieces. Its size is bounded by that of its batch.
struct SnappyBlocks {
    framed: Bytes,
    block: Vec<u8>,
    /// What was read of the block.
    at: usize,
}

impl SnappyBlocks {
    fn new(compressed: Bytes) -> std::io::Result<SnappyBlocks> {
        if compressed.starts_with(SNAPPY_FRAME_MAGIC) {
            let framed = compressed.get(SNAPPY_FRAME_HEADER_BYTES..).ok_or_else(torn)?;
            return Ok(SnappyBlocks { framed: compressed.slice_ref(framed), block: Vec::new(), at: 0 });
        }
        Ok(SnappyBlocks { framed: Bytes::new(), block: snappy_block(&compressed)?, at: 0 })
    }
}

impl Read for SnappyBlocks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.block.len() && !self.framed.is_empty() {
            // Each block comes after its length in four bytes.
            let (length, rest) = self.framed.split_first_chunk().ok_or_else(torn)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| torn())?;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(torn)?;
            self.block = snappy_block(block)?;
            self.at = 0;
            self.framed = self.framed.slice_ref(rest);
        }
        let read = (&self.block[self.at..]).read(into)?;
        self.at += read;
        Ok(read)
    }
}

fn snappy_block(block: &[u8]) -> std::io::Result<Vec<u8>> {
    let bytes = snap::raw::decompress_len(block).map_err(std::io::Error::other)?;
    if bytes > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(std::io::Error::other("a snappy block announces more than it can hold"));
    }
    let mut decompressed = vec![0; bytes];
    snap::raw::Decoder::new().decompress(block, &mut decompressed).map_err(std::io::Error::other)?;
    Ok(decompressed)
}

fn damaged(error: impl std::fmt::Display) -> BatchError {
    BatchError::Undecodable(error.to_string())
}

fn torn() -> std::io::Error {
    std::io::Error::other("a snappy frame is cut off")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decompress(codec: Codec, compressed: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut decompressor = codec.open(Bytes::copy_from_slice(compressed))?;
        let mut into = Vec::new();
        while !decompressor.read(&mut into, 1_000)? {}
        Ok(into)
    }

    #[test]
    fn compressed_data_comes_back_unchanged() {
        let text = "again and again, ".repeat(100_000).into_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&text).unwrap();
        let zstd = zstd::stream::encode_all(&text[..], 3).unwrap();
        for (codec, compressed) in
            [(Codec::Gzip, gzip.finish().unwrap()), (Codec::Lz4, lz4.finish().unwrap()), (Codec::Zstd, zstd)]
        {
            assert!(decompress(codec, &compressed).unwrap() == text, "{codec:?}");
        }
    }

    #[test]
    fn snappy_comes_framed_or_bare() {
        let block = |text: &[u8]| snap::raw::Encoder::new().compress_vec(text).unwrap();
        assert_eq!(decompress(Codec::Snappy, &block(b"bare")).unwrap(), b"bare");
        let mut framed = [SNAPPY_FRAME_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for text in [b"one, ", b"two. "] {
            let block = block(text);
            framed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
            framed.extend(block);
        }
        assert_eq!(decompress(Codec::Snappy, &framed).unwrap(), b"one, two. ");
        framed.pop();
        assert!(matches!(decompress(Codec::Snappy, &framed), Err(BatchError::Undecodable(_))));
    }

    #[test]
    fn a_large_batch_is_read_in_pieces_and_passed_over() {
        let text: Vec<u8> = (0..200_u8).cycle().take(5_000_000).collect();
        let zstd = Bytes::from(zstd::stream::encode_all(&text[..], 1).unwrap());
        let mut decompressor = Codec::Zstd.open(zstd).unwrap();
        let mut piece = Vec::new();
        assert_eq!(decompressor.read(&mut piece, 1_000), Ok(false));
        decompressor.skip(4_000_000).unwrap();
        assert_eq!(decompressor.read(&mut piece, 1_000), Ok(false));
        assert!(piece[..1_000] == text[..1_000] && piece[1_000..] == text[4_001_000..4_002_000]);
        assert_eq!(decompressor.skip(u64::MAX), Err(BatchError::EndsEarly));
    }

    #[test]
    fn a_bomb_is_an_error_before_it_fills_memory_or_takes_for_ever() {
        let zeros = vec![0; 1024 * 1024];
        let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..=BATCH_DECOMPRESSED_BYTES_MAX / zeros.len() as u64 {
            bomb.write_all(&zeros).unwrap();
        }
        let mut bomb = Codec::Zstd.open(bomb.finish().unwrap().into()).unwrap();
        assert_eq!(bomb.skip(u64::MAX), Err(BatchError::Blown { limit: BATCH_DECOMPRESSED_BYTES_MAX }));
        // Snappy announces its length, so that no memory is reserved for what it cannot hold.
        assert!(matches!(
            decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
            Err(BatchError::Undecodable(_))
        ));
    }

    #[test]
    fn damage_is_an_error_in_every_codec() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert!(matches!(decompress(codec, b"\x05neither"), Err(BatchError::Undecodable(_))), "{codec:?}");
        }
        assert_eq!(Codec::of_attributes(0b1000).unwrap(), None, "the other bits have other meanings");
        assert_eq!(Codec::of_attributes(5), Err(BatchError::UnknownCodec { codec: 5 }));
    }
}
