//! Records read and not yet archived, per shard; and the rule of when they go.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::ShardId;

/// One record as the log delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawRecord {
    pub(super) offset: u64,
    pub(super) arrival_ms: UnixMillis,
    pub(super) value: Vec<u8>,
}

/// When a shard's buffer becomes a file. Whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlushLimits {
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
    pub(super) age_max: Duration,
}

/// A contiguous run of records of one shard, taken by the log within one hour: the content of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) shard: ShardId,
    pub(super) hour: DateTime<Utc>,
    pub(super) records: Vec<RawRecord>,
}

impl Segment {
    /// `[from, to)`.
    pub(super) fn offsets(&self) -> (u64, u64) {
        let from = self.records.first().map_or(0, |record| record.offset);
        let to = self.records.last().map_or(0, |record| record.offset + 1);
        (from, to)
    }

    /// Says what the file holds, so that writing it twice is harmless, and sorts by offset.
    pub(super) fn file_name(&self) -> String {
        let (from, to) = self.offsets();
        format!("raw/hour={}/shard={:05}/{from:020}-{to:020}.parquet", self.hour.format("%Y-%m-%dT%H"), self.shard.0)
    }
}

/// One shard's buffer. Offsets in it are contiguous.
#[derive(Debug)]
pub(super) struct ShardBuffer {
    shard: ShardId,
    /// The offset the next record must have.
    next: u64,
    records: Vec<RawRecord>,
    bytes: usize,
    /// Monotonic time at which the oldest buffered record was taken in.
    oldest: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) expected: u64,
    pub(super) found: u64,
}

impl ShardBuffer {
    pub(super) fn new(shard: ShardId, next: u64) -> ShardBuffer {
        ShardBuffer { shard, next, records: Vec::new(), bytes: 0, oldest: None }
    }

    /// # Errors
    /// [`Gap`] when the record does not follow the one before: the log lost something, or repeats itself.
    pub(super) fn push(&mut self, record: RawRecord, now: Duration) -> Result<(), Gap> {
        if record.offset != self.next {
            return Err(Gap { expected: self.next, found: record.offset });
        }
        self.next += 1;
        self.bytes += record.value.len();
        self.records.push(record);
        self.oldest.get_or_insert(now);
        assert_eq!(self.records.last().map(|last| last.offset + 1), Some(self.next), "the buffer ends before `next`");
        Ok(())
    }

    pub(super) fn is_due(&self, limits: &FlushLimits, now: Duration) -> bool {
        self.records.len() >= limits.records_max || self.bytes >= limits.bytes_max || self.age(now) >= limits.age_max
    }

    /// Zero when empty.
    pub(super) fn age(&self, now: Duration) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The offset after the last record taken in.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Everything buffered, cut wherever the hour of arrival changes; the buffer is empty after.
    pub(super) fn take(&mut self) -> Vec<Segment> {
        self.bytes = 0;
        self.oldest = None;
        let records = self.records.len();
        let mut segments: Vec<Segment> = Vec::new();
        for record in std::mem::take(&mut self.records) {
            let hour = hour_of(record.arrival_ms);
            match segments.last_mut() {
                Some(segment) if segment.hour == hour => segment.records.push(record),
                _ => segments.push(Segment { shard: self.shard, hour, records: vec![record] }),
            }
        }
        assert_eq!(segments.iter().map(|s| s.records.len()).sum::<usize>(), records, "cutting loses no record");
        assert!(
            segments.windows(2).all(|pair| pair[0].offsets().1 == pair[1].offsets().0),
            "segments of a shard follow each other without gap or overlap"
        );
        segments
    }
}

/// Arrivals no calendar knows are filed under 1970: the time is the broker's, and a file must have a name.
fn hour_of(arrival_ms: UnixMillis) -> DateTime<Utc> {
    i64::try_from(arrival_ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .filter(|time| time.timestamp() < 253_370_764_800) // The year 9999.
        .and_then(|time| time.duration_trunc(TimeDelta::hours(1)).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, arrival_ms: u64) -> RawRecord {
        RawRecord { offset, arrival_ms, value: vec![0; 10] }
    }

    const LIMITS: FlushLimits = FlushLimits { records_max: 3, bytes_max: 1_000, age_max: Duration::from_secs(5) };

    #[test]
    fn a_gap_or_a_repeat_is_refused() {
        let mut buffer = ShardBuffer::new(ShardId(1), 7);
        buffer.push(record(7, 0), Duration::ZERO).unwrap();
        assert_eq!(buffer.push(record(9, 0), Duration::ZERO), Err(Gap { expected: 8, found: 9 }));
        assert_eq!(buffer.push(record(7, 0), Duration::ZERO), Err(Gap { expected: 8, found: 7 }));
    }

    #[test]
    fn a_file_never_spans_an_hour_and_segments_stay_contiguous() {
        let mut buffer = ShardBuffer::new(ShardId(1), 0);
        for (offset, arrival) in [(0, 3_599_999), (1, 3_600_000), (2, 3_700_000), (3, 7_200_000)] {
            buffer.push(record(offset, arrival), Duration::ZERO).unwrap();
        }
        let segments = buffer.take();
        assert_eq!(segments.iter().map(Segment::offsets).collect::<Vec<_>>(), [(0, 1), (1, 3), (3, 4)]);
        assert_eq!(
            segments[1].file_name(),
            "raw/hour=1970-01-01T01/shard=00001/00000000000000000001-00000000000000000003.parquet"
        );
        assert!(buffer.is_empty() && buffer.next() == 4);
    }

    #[test]
    fn a_buffer_goes_when_full_or_old_and_not_before() {
        let mut buffer = ShardBuffer::new(ShardId(0), 0);
        assert!(!buffer.is_due(&LIMITS, Duration::from_secs(9)));
        buffer.push(record(0, 0), Duration::from_secs(10)).unwrap();
        assert!(!buffer.is_due(&LIMITS, Duration::from_secs(14)));
        assert!(buffer.is_due(&LIMITS, Duration::from_secs(15)));
        buffer.push(record(1, 0), Duration::from_secs(10)).unwrap();
        buffer.push(record(2, 0), Duration::from_secs(10)).unwrap();
        assert!(buffer.is_due(&LIMITS, Duration::from_secs(10)));
    }

    #[test]
    fn an_absurd_arrival_still_gets_a_file() {
        let mut buffer = ShardBuffer::new(ShardId(0), 0);
        buffer.push(record(0, u64::MAX), Duration::ZERO).unwrap();
        assert!(buffer.take()[0].file_name().starts_with("raw/hour=1970-01-01T00/"));
    }
}
