//! Cuts one partition's fetched batches into records, on the thread that counts them.

use bytes::Bytes;
use clicktally_proto::click::record::RECORD_BYTES_MAX;
use clicktally_proto::click_log::{LogError, LogRecord, ShardReader};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::shard_key::ShardId;

use super::compression::{Codec, Decompressor};
use super::feed::Chunk;
use super::fetcher::{Fetcher, OpenFeed};
use super::record_batch::{BatchError, BatchHeader, HEADER_BYTES, RecordWalk, Walked};

/// Decompressed at a time. A larger batch is read in pieces.
const WINDOW_BYTES: usize = 32 << 20;
const _: () = assert!(RECORD_BYTES_MAX < WINDOW_BYTES, "the window holds what a reader hands over");
/// The window keeps this much between batches, so that one large batch does not hold memory for good.
const WINDOW_KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) struct DirectShardReader {
    feed: OpenFeed,
    /// The next offset due. Offsets may have holes, which are passed batch by batch; they never go back.
    position: u64,
    /// The chunk being read, and the bytes of it already read.
    chunk: Option<(Chunk, usize)>,
    batch: Option<OpenBatch>,
    /// Decompressed records of the open batch.
    window: Vec<u8>,
    /// Set by the first error and never cleared, because records behind it may lie behind a hole.
    failure: Option<LogError>,
}

struct OpenBatch {
    walk: RecordWalk,
    next_offset: u64,
    content: Content,
}

enum Content {
    Plain(Bytes),
    Compressed { rest: Decompressor, is_at_end: bool },
}

impl OpenBatch {
    /// Moves the window on. `false`: it is full, and cannot hold the next record.
    fn move_window(&mut self, window: &mut Vec<u8>) -> Result<bool, BatchError> {
        let Content::Compressed { rest, is_at_end: is_at_end @ false } = &mut self.content else {
            return Err(BatchError::EndsEarly);
        };
        let read = self.walk.move_window();
        let beyond = read.saturating_sub(window.len());
        window.drain(..read - beyond);
        if beyond > 0 {
            rest.skip(beyond as u64)?;
        }
        if window.len() == WINDOW_BYTES {
            return Ok(false);
        }
        *is_at_end = rest.read(window, WINDOW_BYTES - window.len())?;
        Ok(true)
    }
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
        Ok(DirectShardReader { feed, position: from, chunk: None, batch: None, window: Vec::new(), failure: None })
    }

    /// Hands over records of the open batch, and closes it after the last one.
    fn walk(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> usize {
        let Some(batch) = &mut self.batch else { return 0 };
        let mut taken = 0;
        while taken < records_max {
            let window = match &batch.content {
                Content::Plain(records) => records,
                Content::Compressed { .. } => &self.window[..],
            };
            let record = match batch.walk.next(window) {
                Ok(Walked::Record(record)) => Ok(record),
                Ok(Walked::End) => {
                    self.position = self.position.max(batch.next_offset);
                    self.batch = None;
                    break;
                }
                Ok(Walked::Beyond) => match batch.move_window(&mut self.window) {
                    Ok(true) => continue,
                    Ok(false) => batch.walk.next_cut(&self.window),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match record {
                // The first batch may begin before the offset asked for.
                Ok(record) if record.offset < self.position => {}
                Ok(record) => {
                    self.position = record.offset + 1;
                    taken += 1;
                    take(record);
                }
                Err(error) => {
                    self.failure = Some(error.at(self.feed.feed.shard, self.position));
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
            let (shard, position) = (self.feed.feed.shard, self.position);
            let explain = |error: BatchError| error.at(shard, position);
            let rest = &chunk.batches[*read..];
            // The fetcher cuts chunks at the ends of batches.
            let header = BatchHeader::read(rest)
                .map_err(explain)?
                .ok_or_else(|| explain(BatchError::Header("it is cut off")))?;
            let bytes = chunk.batches.slice(*read..*read + header.bytes);
            *read += header.bytes;
            header.verify(&bytes).map_err(explain)?;
            let next_offset = header.last_offset + 1;
            let marker = header.marker(&bytes).map_err(explain)?;
            if let Some(marker) = marker {
                chunk.aborted.end(&header, marker);
            }
            let is_aborted = marker.is_none() && chunk.aborted.contain(&header);
            if marker.is_some() || is_aborted && !is_broken(Mutant::AbortedCounted) {
                self.position = self.position.max(next_offset);
                continue;
            }
            let records = bytes.slice(HEADER_BYTES..);
            let content = match Codec::of_attributes(header.attributes).map_err(explain)? {
                None => Content::Plain(records),
                Some(codec) => {
                    self.window.clear();
                    self.window.shrink_to(WINDOW_KEPT_BYTES_MAX);
                    Content::Compressed { rest: codec.open(records).map_err(explain)?, is_at_end: false }
                }
            };
            self.batch = Some(OpenBatch { walk: header.walk(), next_offset, content });
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

    fn position(&self) -> u64 {
        self.position
    }
}
