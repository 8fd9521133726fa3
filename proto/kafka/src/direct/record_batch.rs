//! Kafka's record batch, format 2: its header, its checksum, and the walk through its records.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>. Multi-byte integers of the header are big-endian, and
//! those of a record are zigzag varints. Offsets inside a batch rise, with holes where a topic is compacted.

use clicktally_proto::click::record::RECORD_BYTES_MAX;
use clicktally_proto::click_log::{LogError, LogRecord};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_proto::varint;
use thiserror::Error;

/// Everything before the first record.
pub(super) const HEADER_BYTES: usize = 61;
/// Offset and length. The length does not include these bytes.
const PREFIX_BYTES: usize = 12;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 21;
const MAGIC: u8 = 2;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum BatchError {
    #[error("the batch at offset {offset} is damaged: its checksum differs")]
    Checksum { offset: u64 },
    /// Seen before the checksum is compared.
    #[error("the header of a batch is malformed: {0}")]
    Header(&'static str),
    #[error(
        "a batch has format {magic} of before Kafka 0.11, and the direct fetcher reads only format 2: set [log] fetch to \"librdkafka\""
    )]
    OldFormat { magic: u8 },
    #[error("a batch is compressed with codec {codec}, which this version does not know")]
    UnknownCodec { codec: i16 },
    #[error("a batch cannot be decompressed: {0}")]
    Undecodable(String),
    #[error("a batch decompresses to more than {limit} bytes")]
    Blown { limit: u64 },
    #[error("a batch is malformed: a record ends before its fields do")]
    EndsEarly,
    #[error("a batch is malformed: {0}")]
    Malformed(&'static str),
}

impl BatchError {
    /// `position`: the next offset due of the shard's reader.
    pub(super) fn at(self, shard: ShardId, position: u64) -> LogError {
        match self {
            // Read again, the batch may be right.
            BatchError::Checksum { .. } | BatchError::Header(_) => {
                LogError::Damaged { shard, offset: position, detail: self.to_string() }
            }
            // The batch was written like this. To skip it would lose its clicks.
            BatchError::OldFormat { .. }
            | BatchError::UnknownCodec { .. }
            | BatchError::Undecodable(_)
            | BatchError::Blown { .. }
            | BatchError::EndsEarly
            | BatchError::Malformed(_) => LogError::Fatal(self.to_string()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) base_offset: u64,
    /// The offset of the last record, even if compaction removed that record.
    pub(super) last_offset: u64,
    /// The epoch of the leader that accepted the batch.
    pub(super) leader_epoch: i32,
    /// Including the header.
    pub(super) bytes: usize,
    pub(super) attributes: i16,
    /// Meaningful in transactional batches only.
    pub(super) producer_id: i64,
    checksum: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    records: u32,
}

impl BatchHeader {
    /// Reads the header of the batch at the start of `bytes`. `None`: the batch is cut off.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<BatchHeader>, BatchError> {
        // The older formats have their number at the same place.
        match bytes.get(16) {
            None => return Ok(None),
            Some(&MAGIC) => {}
            Some(&magic) => return Err(BatchError::OldFormat { magic }),
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::try_from(i32_at(header, 8)).map_err(|_| BatchError::Header("its length is negative"))?;
        let whole = length + PREFIX_BYTES;
        if whole < HEADER_BYTES {
            return Err(BatchError::Header("it is shorter than its header"));
        }
        let not_an_offset = |_| BatchError::Header("an offset is negative");
        let base_offset = u64::try_from(i64_at(header, 0)).map_err(not_an_offset)?;
        let last_offset = base_offset + u64::try_from(i32_at(header, 23)).map_err(not_an_offset)?;
        let records = u32::try_from(i32_at(header, 57)).map_err(|_| BatchError::Header("its count is negative"))?;
        let header = BatchHeader {
            base_offset,
            last_offset,
            leader_epoch: i32_at(header, 12),
            bytes: whole,
            attributes: i16::from_be_bytes([header[21], header[22]]),
            producer_id: i64_at(header, 43),
            checksum: i32_at(header, 17).cast_unsigned(),
            base_timestamp_ms: i64_at(header, 27),
            max_timestamp_ms: i64_at(header, 35),
            records,
        };
        Ok((bytes.len() >= whole).then_some(header))
    }

    /// Compares the checksum (CRC-32C) of the batch with the one that its writer stored.
    pub(super) fn verify(&self, batch: &[u8]) -> Result<(), BatchError> {
        assert_eq!(batch.len(), self.bytes, "a header is checked against its own batch, whole");
        if crc32c::crc32c(&batch[CHECKED_FROM..]) == self.checksum {
            return Ok(());
        }
        Err(BatchError::Checksum { offset: self.base_offset })
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// The broker's note about a transaction, if the batch has one instead of records. `batch`: whole.
    pub(super) fn marker(&self, batch: &[u8]) -> Result<Option<Marker>, BatchError> {
        if self.attributes & CONTROL == 0 {
            return Ok(None);
        }
        // Compaction may have removed the note and left its batch.
        if self.records == 0 {
            return Ok(Some(Marker::Other));
        }
        Marker::read(&batch[HEADER_BYTES..]).map(Some)
    }

    pub(super) fn walk(&self) -> RecordWalk {
        RecordWalk {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            base_timestamp_ms: self.base_timestamp_ms,
            log_append_ms: (self.attributes & LOG_APPEND_TIME != 0).then(|| to_unix_ms(self.max_timestamp_ms)),
            left: self.records,
            at: 0,
            offset_due: self.base_offset,
        }
    }
}

/// The broker's note in the log that a transaction is over, or another note of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Commit,
    /// A kind that does not concern readers.
    Other,
}

impl Marker {
    /// The kind is in the key of the only record: a version and a type, two bytes each.
    fn read(records: &[u8]) -> Result<Marker, BatchError> {
        let mut at = 0;
        length(records, &mut at)?;
        at += 1;
        signed(records, &mut at)?;
        signed(records, &mut at)?;
        let key_bytes = length(records, &mut at)?.unwrap_or(0);
        let key = records.get(at..at.saturating_add(key_bytes)).ok_or(BatchError::EndsEarly)?;
        match key {
            [_, _, 0, 0, ..] => Ok(Marker::Abort),
            [_, _, 0, 1, ..] => Ok(Marker::Commit),
            [_, _, _, _, ..] => Ok(Marker::Other),
            _ => Err(BatchError::Malformed("the key of a marker is too short")),
        }
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(super) enum Walked<'a> {
    Record(LogRecord<'a>),
    /// The last record was read before.
    End,
    /// The window ends before the next record does.
    Beyond,
}

/// A place among the records of one batch, of which a window of bytes is at hand.
#[derive(Debug)]
pub(super) struct RecordWalk {
    base_offset: u64,
    last_offset: u64,
    base_timestamp_ms: i64,
    /// When the broker accepted the batch. `None`: each record has its producer's time.
    log_append_ms: Option<UnixMillis>,
    left: u32,
    at: usize,
    offset_due: u64,
}

impl RecordWalk {
    /// The next record of `window`, which must be the same at each call, or be moved on by
    /// [`RecordWalk::move_window`].
    #[inline]
    pub(super) fn next<'a>(&mut self, window: &'a [u8]) -> Result<Walked<'a>, BatchError> {
        if self.left == 0 {
            return Ok(Walked::End);
        }
        let mut at = self.at;
        let Ok(length) = length(window, &mut at) else { return Ok(Walked::Beyond) };
        let length = length.ok_or(BatchError::Malformed("a record has no length"))?;
        let end = at.checked_add(length).ok_or(BatchError::EndsEarly)?;
        let Some(record) = window.get(..end) else { return Ok(Walked::Beyond) };
        // A record has one byte of attributes, none of which is defined.
        at += 1;
        let timestamp_delta_ms = signed(record, &mut at)?;
        let offset_delta = signed(record, &mut at)?;
        if let Some(key_bytes) = self::length(record, &mut at)? {
            at = at.checked_add(key_bytes).ok_or(BatchError::EndsEarly)?;
        }
        // Headers may follow. This system writes none.
        let value = match self::length(record, &mut at)? {
            Some(value_bytes) => {
                let value_end = at.checked_add(value_bytes).ok_or(BatchError::EndsEarly)?;
                record.get(at..value_end).ok_or(BatchError::EndsEarly)?
            }
            None => &[],
        };
        self.pass(end, offset_delta, timestamp_delta_ms, value).map(Walked::Record)
    }

    /// The next record, of which the window holds only the beginning. Hands over as much of its value as makes it too
    /// long for every decoder, or nothing of it.
    pub(super) fn next_cut<'a>(&mut self, window: &'a [u8]) -> Result<LogRecord<'a>, BatchError> {
        let mut at = self.at;
        let length = length(window, &mut at)?.unwrap_or(0);
        let end = at.checked_add(length).ok_or(BatchError::EndsEarly)?;
        at += 1;
        let timestamp_delta_ms = signed(window, &mut at)?;
        let offset_delta = signed(window, &mut at)?;
        let key_bytes = self::length(window, &mut at)?.unwrap_or(0);
        at = at.saturating_add(key_bytes);
        let value_bytes = self::length(window, &mut at).ok().flatten().unwrap_or(0);
        let read_bytes = value_bytes.min(RECORD_BYTES_MAX + 1);
        let value = window.get(at..at.saturating_add(read_bytes)).unwrap_or(&[]);
        self.pass(end, offset_delta, timestamp_delta_ms, value)
    }

    /// What of the window was read, from its start on. It may be more than the window holds. The window must begin
    /// behind it from now on.
    pub(super) fn move_window(&mut self) -> usize {
        std::mem::take(&mut self.at)
    }

    #[inline]
    fn pass<'a>(
        &mut self,
        end: usize,
        offset_delta: i64,
        timestamp_delta_ms: i64,
        value: &'a [u8],
    ) -> Result<LogRecord<'a>, BatchError> {
        let offset = self.base_offset.wrapping_add_signed(offset_delta);
        if offset < self.offset_due || offset > self.last_offset {
            return Err(BatchError::Malformed("its offsets do not rise, or lie outside its bounds"));
        }
        self.offset_due = offset + 1;
        self.at = end;
        self.left -= 1;
        let arrival_ms = match self.log_append_ms {
            Some(at_ms) => at_ms,
            None => to_unix_ms(self.base_timestamp_ms.saturating_add(timestamp_delta_ms)),
        };
        let value = value.get(..=RECORD_BYTES_MAX).unwrap_or(value);
        Ok(LogRecord { offset, arrival_ms, value })
    }
}

#[inline]
fn signed(bytes: &[u8], at: &mut usize) -> Result<i64, BatchError> {
    varint::read_signed(bytes, at).ok_or(BatchError::EndsEarly)
}

/// A length of −1 means that the field is absent.
#[inline]
fn length(bytes: &[u8], at: &mut usize) -> Result<Option<usize>, BatchError> {
    match signed(bytes, at)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| BatchError::Malformed("a length is negative")),
    }
}

fn to_unix_ms(timestamp_ms: i64) -> UnixMillis {
    u64::try_from(timestamp_ms).unwrap_or(0)
}

fn i32_at(header: &[u8; HEADER_BYTES], at: usize) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    i32::from_be_bytes(bytes)
}

fn i64_at(header: &[u8; HEADER_BYTES], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    i64::from_be_bytes(bytes)
}

#[cfg(test)]
impl BatchHeader {
    pub(super) fn transactional_for_tests(producer_id: i64, base_offset: u64, last_offset: u64) -> BatchHeader {
        BatchHeader {
            base_offset,
            last_offset,
            leader_epoch: 0,
            bytes: HEADER_BYTES,
            attributes: TRANSACTIONAL,
            producer_id,
            checksum: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            records: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Written by the code of another project, not compressed.
    fn batch(records: &[(u64, u64, Vec<u8>)]) -> Vec<u8> {
        let records: Vec<_> = records.iter().map(|(offset, time, value)| record(*offset, *time, value)).collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, records.iter(), &options).unwrap();
        batch.to_vec()
    }

    fn record(offset: u64, time_ms: u64, value: &[u8]) -> Record {
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: offset as i64,
            sequence: offset as i32,
            timestamp: time_ms as i64,
            key: (!offset.is_multiple_of(3)).then(|| Bytes::from_static(b"key")),
            value: (!value.is_empty()).then(|| Bytes::copy_from_slice(value)),
            headers: std::iter::repeat_n(("header".to_owned().into(), None), (offset % 2) as usize).collect(),
        }
    }

    fn walk(batch: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>, BatchError> {
        let header = BatchHeader::read(batch)?.ok_or(BatchError::Malformed("torn"))?;
        header.verify(&batch[..header.bytes])?;
        let (mut walk, mut seen) = (header.walk(), Vec::new());
        loop {
            match walk.next(&batch[HEADER_BYTES..header.bytes])? {
                Walked::Record(record) => seen.push((record.offset, record.arrival_ms, record.value.to_vec())),
                Walked::End => return Ok(seen),
                Walked::Beyond => return Err(BatchError::EndsEarly),
            }
        }
    }

    /// Rising offsets with holes, times in any order, some values empty.
    fn records() -> impl Strategy<Value = Vec<(u64, u64, Vec<u8>)>> {
        let steps = vec((1_u64..200, 0_u64..100_000, vec(any::<u8>(), 0..300)), 1..40);
        (0_u64..1 << 40, steps).prop_map(|(base, steps)| {
            let mut offset = base;
            let place = |(step, time, value)| {
                offset += step;
                (offset, 1_700_000_000_000 + time, value)
            };
            steps.into_iter().map(place).collect()
        })
    }

    proptest! {
        #[test]
        fn a_batch_written_by_another_project_is_read(records in records()) {
            prop_assert_eq!(walk(&batch(&records)).unwrap(), records);
        }

        #[test]
        fn no_flipped_bit_goes_unseen(records in records(), at in any::<proptest::sample::Index>(), bit in 0_u32..8) {
            let mut batch = batch(&records);
            let at = CHECKED_FROM + at.index(batch.len() - CHECKED_FROM);
            batch[at] ^= 1_u8 << bit;
            prop_assert!(walk(&batch).is_err());
        }

        #[test]
        fn a_batch_that_is_cut_off_is_not_read(records in records(), at in any::<proptest::sample::Index>()) {
            let batch = batch(&records);
            prop_assert_eq!(BatchHeader::read(&batch[..at.index(batch.len())]), Ok(None));
        }

        #[test]
        fn arbitrary_bytes_end_in_an_error(mut records in vec(any::<u8>(), 0..200), left in 1_u32..50) {
            // The walk stays inside the bytes and ends.
            let mut walk = RecordWalk { base_offset: 0, last_offset: 1_000, base_timestamp_ms: 0, log_append_ms: None,
                left, at: 0, offset_due: 0 };
            records.truncate(100);
            let mut seen = 0;
            while let Ok(Walked::Record(_)) = walk.next(&records) {
                seen += 1;
            }
            prop_assert!(seen <= left);
        }
    }

    /// Gives a changed batch the checksum that fits it.
    fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
        let checksum = crc32c::crc32c(&batch[CHECKED_FROM..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
        batch
    }

    #[test]
    fn arrival_is_the_brokers_time_where_the_batch_has_it() {
        let mut batch = batch(&[(5, 1_000, b"a".to_vec()), (6, 3_000, b"b".to_vec())]);
        let arrivals = |batch: &[u8]| walk(batch).unwrap().into_iter().map(|(_, arrival, _)| arrival);
        assert!(arrivals(&batch).eq([1_000, 3_000]));
        batch[22] |= 1 << 3;
        assert!(arrivals(&sealed(batch)).eq([3_000, 3_000]));
    }

    /// The window is as large as a reader's, and the record larger.
    #[test]
    fn a_record_beyond_the_window_is_handed_over_in_part_and_passed() {
        let batch = batch(&[(5, 1_000, vec![b'y'; 3 * RECORD_BYTES_MAX]), (6, 1_000, b"next".to_vec())]);
        let (mut walk, records) = (BatchHeader::read(&batch).unwrap().unwrap().walk(), &batch[HEADER_BYTES..]);
        let window = &records[..2 * RECORD_BYTES_MAX];
        assert!(matches!(walk.next(window), Ok(Walked::Beyond)));
        let cut = walk.next_cut(window).unwrap();
        assert_eq!((cut.offset, cut.value.len()), (5, RECORD_BYTES_MAX + 1));
        assert!(cut.value.iter().all(|byte| *byte == b'y'));
        assert!(matches!(walk.next(window), Ok(Walked::Beyond)));
        let behind = &records[walk.move_window()..];
        let Ok(Walked::Record(next)) = walk.next(behind) else { panic!("the next record is in the window") };
        assert_eq!((next.offset, next.value), (6, &b"next"[..]));
        assert!(matches!(walk.next(behind), Ok(Walked::End)));
    }

    #[test]
    fn older_formats_are_refused_by_number() {
        let mut old = batch(&[(5, 1_000, b"a".to_vec())]);
        old[16] = 1;
        assert_eq!(walk(&old), Err(BatchError::OldFormat { magic: 1 }));
    }

    #[test]
    fn a_batch_keeps_its_own_bounds() {
        let mut batch = batch(&[(5, 1_000, b"a".to_vec()), (9, 1_000, b"b".to_vec())]);
        // The header now says that the batch ends at offset 6.
        batch[23..27].copy_from_slice(&1_i32.to_be_bytes());
        assert!(matches!(walk(&sealed(batch)), Err(BatchError::Malformed(_))));
    }
}
