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

/// All readable records of one shard in `[offset_from, offset_to)`, taken by the log within one hour. They are the
/// content of one file. Offsets have holes, where the log holds markers of transactions or aborted records. There may
/// be no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) shard: ShardId,
    pub(super) hour: DateTime<Utc>,
    pub(super) offset_from: u64,
    /// Exclusive.
    pub(super) offset_to: u64,
    pub(super) records: Vec<RawRecord>,
}

impl Segment {
    /// Says what the file holds, so that writing it twice is harmless, and sorts by offset.
    pub(super) fn file_name(&self) -> String {
        let (from, to) = (self.offset_from, self.offset_to);
        format!("raw/hour={}/shard={:05}/{from:020}-{to:020}.parquet", self.hour.format("%Y-%m-%dT%H"), self.shard.0)
    }
}

/// One shard's buffer: everything readable in `[from, next)`.
#[derive(Debug)]
pub(super) struct ShardBuffer {
    shard: ShardId,
    /// Everything below is archived.
    from: u64,
    /// The next offset due.
    next: u64,
    records: Vec<RawRecord>,
    bytes: usize,
    /// Monotonic time at which the oldest buffered offset was taken in.
    oldest: Option<Duration>,
}

/// An offset was read twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) due: u64,
    pub(super) found: u64,
}

impl ShardBuffer {
    pub(super) fn new(shard: ShardId, next: u64) -> ShardBuffer {
        ShardBuffer { shard, from: next, next, records: Vec::new(), bytes: 0, oldest: None }
    }

    /// Takes the next readable record. A hole before it is no loss: the log reports a loss itself, where the offset due
    /// is below its start.
    ///
    /// # Errors
    /// [`Repeat`] when the record lies before the offset due.
    pub(super) fn push(&mut self, record: RawRecord, now: Duration) -> Result<(), Repeat> {
        if record.offset < self.next {
            return Err(Repeat { due: self.next, found: record.offset });
        }
        self.bytes += record.value.len();
        let next = record.offset + 1;
        self.records.push(record);
        self.pass_to(next, now)
    }

    /// Notes that every readable record below `next` was taken.
    ///
    /// # Errors
    /// [`Repeat`] when `next` lies before the offset due.
    pub(super) fn pass_to(&mut self, next: u64, now: Duration) -> Result<(), Repeat> {
        if next < self.next {
            return Err(Repeat { due: self.next, found: next });
        }
        self.next = next;
        if self.from < self.next {
            self.oldest.get_or_insert(now);
        }
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
        self.from == self.next
    }

    /// The next offset due.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Everything buffered, cut wherever the hour of arrival changes; the buffer is empty after. `now_ms`: the arrival
    /// of offsets without a record, which have none of their own.
    pub(super) fn take(&mut self, now_ms: UnixMillis) -> Vec<Segment> {
        self.bytes = 0;
        self.oldest = None;
        let records = self.records.len();
        let mut segments: Vec<Segment> = Vec::new();
        let mut begin = self.from;
        for record in std::mem::take(&mut self.records) {
            let (hour, end) = (hour_of(record.arrival_ms), record.offset + 1);
            match segments.last_mut() {
                Some(segment) if segment.hour == hour => {
                    segment.records.push(record);
                    segment.offset_to = end;
                }
                _ => {
                    let (shard, records) = (self.shard, vec![record]);
                    segments.push(Segment { shard, hour, offset_from: begin, offset_to: end, records });
                }
            }
            begin = end;
        }
        match segments.last_mut() {
            Some(last) => last.offset_to = self.next,
            None if self.is_empty() => {}
            // The manifest must say that these offsets were read: the log forgets them.
            None => segments.push(Segment {
                shard: self.shard,
                hour: hour_of(now_ms),
                offset_from: self.from,
                offset_to: self.next,
                records: Vec::new(),
            }),
        }
        assert_eq!(segments.iter().map(|s| s.records.len()).sum::<usize>(), records, "cutting loses no record");
        assert!(
            segments.windows(2).all(|pair| pair[0].offset_to == pair[1].offset_from),
            "segments of a shard follow each other without gap or overlap"
        );
        self.from = self.next;
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

    fn offsets(segments: &[Segment]) -> Vec<(u64, u64, usize)> {
        segments.iter().map(|segment| (segment.offset_from, segment.offset_to, segment.records.len())).collect()
    }

    #[test]
    fn a_repeat_is_refused() {
        let mut buffer = ShardBuffer::new(ShardId(1), 7);
        buffer.push(record(7, 0), Duration::ZERO).unwrap();
        assert_eq!(buffer.push(record(7, 0), Duration::ZERO), Err(Repeat { due: 8, found: 7 }));
        assert_eq!(buffer.pass_to(7, Duration::ZERO), Err(Repeat { due: 8, found: 7 }));
    }

    /// The markers of transactions, and aborted records: before, between and behind the readable ones.
    #[test]
    fn holes_are_archived_with_the_records_around_them() {
        let mut buffer = ShardBuffer::new(ShardId(1), 7);
        buffer.push(record(9, 0), Duration::ZERO).unwrap();
        buffer.push(record(12, 3_600_000), Duration::ZERO).unwrap();
        buffer.pass_to(14, Duration::ZERO).unwrap();
        assert_eq!(offsets(&buffer.take(0)), [(7, 10, 1), (10, 14, 1)]);
        assert!(buffer.is_empty() && buffer.next() == 14);
    }

    #[test]
    fn offsets_without_any_record_are_archived_once_they_are_old() {
        let mut buffer = ShardBuffer::new(ShardId(1), 7);
        buffer.pass_to(7, Duration::ZERO).unwrap();
        assert!(buffer.is_empty() && buffer.take(0).is_empty());
        buffer.pass_to(9, Duration::from_secs(1)).unwrap();
        assert!(!buffer.is_empty() && buffer.is_due(&LIMITS, Duration::from_secs(6)));
        let segments = buffer.take(7_200_000);
        assert_eq!(offsets(&segments), [(7, 9, 0)]);
        assert!(segments[0].file_name().starts_with("raw/hour=1970-01-01T02/"));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_file_never_spans_an_hour_and_segments_stay_contiguous() {
        let mut buffer = ShardBuffer::new(ShardId(1), 0);
        for (offset, arrival) in [(0, 3_599_999), (1, 3_600_000), (2, 3_700_000), (3, 7_200_000)] {
            buffer.push(record(offset, arrival), Duration::ZERO).unwrap();
        }
        let segments = buffer.take(0);
        assert_eq!(offsets(&segments), [(0, 1, 1), (1, 3, 2), (3, 4, 1)]);
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
        assert!(buffer.take(0)[0].file_name().starts_with("raw/hour=1970-01-01T00/"));
    }
}
