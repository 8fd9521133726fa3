//! Cuts one partition's fetched batches into records, on the thread that counts them.

use bytes::Bytes;
use clicktally_proto::click_log::{LogError, LogRecord, ShardReader};
use clicktally_proto::identity::shard_key::ShardId;

use super::compression::Codec;
use super::feed::Chunk;
use super::fetcher::{Fetcher, OpenFeed};
use super::record_batch::{BatchError, BatchHeader, HEADER_BYTES, RecordWalk};

/// The buffer for decompressed batches keeps this much between batches, so that one large batch does not hold memory
/// for good.
const BUFFER_KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) struct DirectShardReader {
    feed: OpenFeed,
    /// The next offset due. Offsets may have holes; they never go back.
    position: u64,
    /// The chunk being read, and the bytes of it already read.
    chunk: Option<(Chunk, usize)>,
    batch: Option<OpenBatch>,
    decompressed: Vec<u8>,
    /// Set by the first error and never cleared, because records behind it may lie behind a hole.
    failure: Option<LogError>,
}

struct OpenBatch {
    walk: RecordWalk,
    next_offset: u64,
    /// The records, if the batch is not compressed.
    plain: Option<Bytes>,
}

impl DirectShardReader {
    pub(crate) fn open(fetcher: &Fetcher, shard: ShardId, from: u64) -> Result<DirectShardReader, LogError> {
        if i64::try_from(from).is_err() {
            let detail = "the offset is larger than any offset of a log".into();
            return Err(LogError::OffsetLost { shard, offset: from, detail });
        }
        let feed = fetcher.open(shard, from).ok_or_else(|| {
            LogError::Unavailable(format!("cannot open shard {}: an earlier reader is still open", shard.0))
        })?;
        Ok(DirectShardReader {
            feed,
            position: from,
            chunk: None,
            batch: None,
            decompressed: Vec::new(),
            failure: None,
        })
    }

    /// Hands over records of the open batch, and closes it after the last one.
    fn walk(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> usize {
        let Some(batch) = &mut self.batch else { return 0 };
        let records: &[u8] = batch.plain.as_deref().unwrap_or(&self.decompressed);
        let mut taken = 0;
        while taken < records_max {
            match batch.walk.next(records) {
                // The first batch may begin before the offset asked for.
                Ok(Some(record)) if record.offset < self.position => {}
                Ok(Some(record)) => {
                    self.position = record.offset + 1;
                    taken += 1;
                    take(record);
                }
                Ok(None) => {
                    self.position = self.position.max(batch.next_offset);
                    self.batch = None;
                    break;
                }
                Err(error) => {
                    self.failure = Some(error.into());
                    break;
                }
            }
        }
        taken
    }

    /// Opens the next batch that has arrived. `false`: none has.
    fn open_batch(&mut self) -> Result<bool, LogError> {
        loop {
            let Some((chunk, read)) = self.chunk.as_mut().filter(|(chunk, read)| *read < chunk.batches.len()) else {
                let read = self.chunk.take().map(|(chunk, _)| chunk);
                match self.feed.feed.exchange(read)? {
                    Some(chunk) => self.chunk = Some((chunk, 0)),
                    None => return Ok(false),
                }
                continue;
            };
            let rest = &chunk.batches[*read..];
            // The fetcher cuts chunks at the ends of batches.
            let header = BatchHeader::read(rest)?.ok_or(BatchError::Malformed("it is cut off"))?;
            let bytes = chunk.batches.slice(*read..*read + header.bytes);
            *read += header.bytes;
            header.verify(&bytes)?;
            let next_offset = header.last_offset + 1;
            if header.is_control() {
                self.position = self.position.max(next_offset);
                continue;
            }
            let plain = match Codec::of_attributes(header.attributes)? {
                None => Some(bytes.slice(HEADER_BYTES..)),
                Some(codec) => {
                    self.decompressed.clear();
                    self.decompressed.shrink_to(BUFFER_KEPT_BYTES_MAX);
                    codec.decompress(&bytes[HEADER_BYTES..], &mut self.decompressed)?;
                    None
                }
            };
            self.batch = Some(OpenBatch { walk: header.walk(), next_offset, plain });
            return Ok(true);
        }
    }
}

impl ShardReader for DirectShardReader {
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError> {
        let mut taken = 0;
        while taken < records_max && self.failure.is_none() {
            if self.batch.is_none() {
                match self.open_batch() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.failure = Some(error);
                        break;
                    }
                }
            }
            taken += self.walk(records_max - taken, take);
        }
        match &self.failure {
            Some(error) if taken == 0 => Err(error.clone()),
            _ => Ok(taken),
        }
    }
}
