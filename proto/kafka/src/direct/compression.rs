//! Decompresses the records of a batch, in each way that Kafka's producers compress them.

use std::io::Read;

use super::record_batch::BatchError;

/// The largest batch after decompression: bounds the memory that a small batch can ask for. Producers fill batches of a
/// megabyte.
pub(super) const BATCH_DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

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

    /// Replaces the content of `into`.
    ///
    /// # Errors
    /// Damaged input, or more than [`BATCH_DECOMPRESSED_BYTES_MAX`] bytes of output.
    pub(super) fn decompress(self, compressed: &[u8], into: &mut Vec<u8>) -> Result<(), BatchError> {
        into.clear();
        match self {
            Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(compressed), into),
            Codec::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(compressed), into),
            Codec::Zstd => read_all(zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?, into),
            Codec::Snappy => match compressed.strip_prefix(SNAPPY_FRAME_MAGIC) {
                Some(_) => snappy_blocks(compressed.get(SNAPPY_FRAME_HEADER_BYTES..).ok_or_else(torn)?, into),
                None => snappy_block(compressed, into),
            },
        }
    }
}

fn read_all(decoder: impl Read, into: &mut Vec<u8>) -> Result<(), BatchError> {
    let limit = BATCH_DECOMPRESSED_BYTES_MAX;
    let read = decoder.take(limit as u64 + 1).read_to_end(into).map_err(damaged)?;
    if read > limit { Err(BatchError::Blown { limit }) } else { Ok(()) }
}

/// Reads blocks, each after its length in four bytes.
fn snappy_blocks(mut framed: &[u8], into: &mut Vec<u8>) -> Result<(), BatchError> {
    while !framed.is_empty() {
        let (length, rest) = framed.split_first_chunk().ok_or_else(torn)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| torn())?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(torn)?;
        snappy_block(block, into)?;
        framed = rest;
    }
    Ok(())
}

fn snappy_block(block: &[u8], into: &mut Vec<u8>) -> Result<(), BatchError> {
    let start = into.len();
    let end = start.saturating_add(snap::raw::decompress_len(block).map_err(damaged)?);
    if end > BATCH_DECOMPRESSED_BYTES_MAX {
        return Err(BatchError::Blown { limit: BATCH_DECOMPRESSED_BYTES_MAX });
    }
    into.resize(end, 0);
    snap::raw::Decoder::new().decompress(block, &mut into[start..]).map_err(damaged)?;
    Ok(())
}

fn damaged(error: impl std::fmt::Display) -> BatchError {
    BatchError::Undecodable(error.to_string())
}

fn torn() -> BatchError {
    BatchError::Undecodable("a snappy frame is cut off".into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decompress(codec: Codec, compressed: &[u8]) -> Result<Vec<u8>, BatchError> {
        let mut into = b"of the batch before".to_vec();
        codec.decompress(compressed, &mut into).map(|()| into)
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
    fn a_bomb_is_an_error_before_it_fills_memory() {
        let zeros = vec![0; 1024 * 1024];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..=BATCH_DECOMPRESSED_BYTES_MAX / zeros.len() {
            gzip.write_all(&zeros).unwrap();
        }
        let bomb = gzip.finish().unwrap();
        assert!(matches!(decompress(Codec::Gzip, &bomb), Err(BatchError::Blown { .. })));
        // Snappy announces its length, so that no memory is reserved beyond the limit.
        assert!(matches!(decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), Err(BatchError::Blown { .. })));
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
