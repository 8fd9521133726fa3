//! A model of the log: partitions of `raw_clicks` and the outbound topics, as Kafka keeps them.
//!
//! It is pure: the caller passes the time and the outcome of a write ([`Fate`]), so that a seed decides them. What a
//! reader sees follows from the state alone. Arrival times are the log's own clock and never go back within a
//! partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use clicktally_proto::click_log::{LATE_CLICKS, LogError, OutRecord, QUARANTINE, RAW_CLICKS, WINDOW_COUNTS};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::shard_key::ShardId;

use super::random::{FNV_OFFSET, fnv1a};

/// The outcome of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Written,
    /// Written, but the answer is lost, so the writer does not know.
    WrittenUnknown,
    /// The first half is written, the rest is not, and the answer is lost.
    HalfWrittenUnknown,
    /// Written twice: the client retried although its first attempt had arrived.
    WrittenTwice,
    /// Not written, and the writer does not know that.
    Lost,
}

/// What an offset of the raw topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Record,
    /// A record of an aborted transaction. No reader may hand it over.
    Aborted,
    /// The broker's note that a transaction is over.
    Marker,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub arrival_ms: UnixMillis,
    pub value: Arc<[u8]>,
    pub content: Content,
}

impl StoredRecord {
    /// Whether a reader hands it over.
    pub fn is_handed_over(&self) -> bool {
        self.content == Content::Record || self.content == Content::Aborted && is_broken(Mutant::AbortedCounted)
    }
}

#[derive(Debug, Default)]
struct Partition {
    /// One for each offset.
    records: Vec<StoredRecord>,
    /// An unclean election has cut this partition once. A reader that has read beyond the cut must never get what is
    /// written there now.
    truncated_from: Option<u64>,
    is_unavailable: bool,
}

#[derive(Debug)]
pub struct SimLog {
    raw: Vec<Partition>,
    /// The raw topic before it was deleted and made again.
    former: Option<Vec<Partition>>,
    /// Partitions of the outbound topics.
    out: BTreeMap<(&'static str, i32), Vec<StoredRecord>>,
    out_partitions: BTreeMap<&'static str, i32>,
}

impl SimLog {
    /// `partitions`: of the raw topic. The outbound topics have one each, except `late_clicks`, which has two, so that
    /// its order is not total.
    pub fn new(partitions: u16) -> SimLog {
        SimLog {
            raw: (0..partitions).map(|_| Partition::default()).collect(),
            former: None,
            out: BTreeMap::new(),
            out_partitions: BTreeMap::from([(WINDOW_COUNTS, 2), (LATE_CLICKS, 2), (QUARANTINE, 1)]),
        }
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..u16::try_from(self.raw.len()).unwrap_or(u16::MAX)).map(ShardId)
    }

    /// Which raw topic the brokers have.
    pub fn id(&self) -> LogId {
        LogId([1 + u8::from(self.former.is_some()); 16])
    }

    /// The raw topic is deleted and made again, once in a run.
    pub fn make_again(&mut self) {
        assert!(self.former.is_none(), "the oracles know of one former topic");
        let anew = self.raw.iter().map(|_| Partition::default()).collect();
        self.former = Some(std::mem::replace(&mut self.raw, anew));
    }

    /// The partitions that the cluster was founded on, for oracles.
    fn original(&self, shard: ShardId) -> &Partition {
        &self.former.as_ref().unwrap_or(&self.raw)[usize::from(shard.0)]
    }

    /// Appends to a partition of the raw topic and returns the record's offset.
    pub fn append(&mut self, shard: ShardId, now_ms: UnixMillis, value: Arc<[u8]>) -> u64 {
        self.push(shard, now_ms, value, Content::Record)
    }

    fn push(&mut self, shard: ShardId, now_ms: UnixMillis, value: Arc<[u8]>, content: Content) -> u64 {
        let partition = &mut self.raw[usize::from(shard.0)];
        let before_ms = partition.records.last().map_or(0, |record| record.arrival_ms);
        partition.records.push(StoredRecord { arrival_ms: now_ms.max(before_ms), value, content });
        partition.records.len() as u64 - 1
    }

    /// What another producer's transaction leaves in a partition of the raw topic besides committed records: aborted
    /// ones, if there are any, and its marker. A partition without a leader takes nothing.
    pub fn end_transaction(&mut self, shard: ShardId, now_ms: UnixMillis, aborted: Vec<Arc<[u8]>>) {
        if self.raw[usize::from(shard.0)].is_unavailable {
            return;
        }
        for value in aborted {
            self.push(shard, now_ms, value, Content::Aborted);
        }
        self.push(shard, now_ms, Arc::default(), Content::Marker);
    }

    /// As a producer sees it: `Ok` only if everything is durable. A partition without a leader refuses before it writes
    /// anything.
    pub fn publish(&mut self, records: &[OutRecord], now_ms: UnixMillis, fate: Fate) -> Result<(), LogError> {
        let no_leader = |record: &&OutRecord| {
            let partition = usize::try_from(record.partition.unwrap_or(-1));
            record.topic == RAW_CLICKS && partition.is_ok_and(|at| self.raw[at].is_unavailable)
        };
        if records.iter().any(|record| no_leader(&record)) {
            return Err(LogError::Unavailable("the partition has no leader".into()));
        }
        let (written, times) = match fate {
            Fate::Written | Fate::WrittenUnknown => (records.len(), 1),
            Fate::HalfWrittenUnknown => (records.len() / 2, 1),
            Fate::WrittenTwice => (records.len(), 2),
            Fate::Lost => (0, 0),
        };
        for _ in 0..times {
            records[..written].iter().for_each(|record| self.put(record, now_ms));
        }
        match fate {
            Fate::Written | Fate::WrittenTwice => Ok(()),
            Fate::WrittenUnknown | Fate::HalfWrittenUnknown | Fate::Lost => {
                Err(LogError::Unavailable("no answer to a write".into()))
            }
        }
    }

    fn put(&mut self, record: &OutRecord, now_ms: UnixMillis) {
        let value: Arc<[u8]> = record.value.as_slice().into();
        if record.topic == RAW_CLICKS {
            let shard = ShardId(u16::try_from(record.partition.unwrap_or(0)).unwrap_or(0));
            self.append(shard, now_ms, value);
            return;
        }
        let partitions = self.out_partitions.get(record.topic).copied().unwrap_or(1);
        let by_key = || (fnv1a(FNV_OFFSET, &record.key) % u64::from(partitions.unsigned_abs())) as i32;
        let partition = record.partition.unwrap_or_else(by_key);
        let stored = StoredRecord { arrival_ms: now_ms, value, content: Content::Record };
        self.out.entry((record.topic, partition)).or_default().push(stored);
    }

    /// What the offsets of the raw topic hold from `from` on, at most `records_max` of them. Fails if the log no longer
    /// holds the offset, or never did.
    pub fn read(&self, shard: ShardId, from: u64, records_max: usize) -> Result<&[StoredRecord], LogError> {
        let partition = &self.raw[usize::from(shard.0)];
        if partition.is_unavailable {
            return Err(LogError::Unavailable("the partition has no leader".into()));
        }
        let end = partition.records.len() as u64;
        // What is appended behind a cut is another history, which its leader epoch shows.
        let end_of_history = partition.truncated_from.map_or(end, |cut| cut.min(end));
        if from > end_of_history {
            let detail = format!("it ends at {end_of_history}");
            return Err(LogError::OffsetLost { shard, offset: from, detail });
        }
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        let last = first.saturating_add(records_max).min(partition.records.len());
        Ok(&partition.records[first..last])
    }

    pub fn end_offset(&self, shard: ShardId) -> Result<u64, LogError> {
        let partition = &self.raw[usize::from(shard.0)];
        if partition.is_unavailable {
            return Err(LogError::Unavailable("the partition has no leader".into()));
        }
        Ok(partition.records.len() as u64)
    }

    /// What each offset of the partition holds, readable or not: for oracles. If the topic was made again, the former
    /// one counts, because nothing of the new one may be counted.
    pub fn held(&self, shard: ShardId) -> &[StoredRecord] {
        &self.original(shard).records
    }

    /// Whether the shard cannot read on: it halts until an operator acts.
    pub fn is_lost(&self, shard: ShardId) -> bool {
        self.former.is_some() || self.truncated_from(shard).is_some()
    }

    /// Takes the leader of a partition away, or brings it back. Without one, the partition cannot be read or written,
    /// and its end is unknown.
    pub fn set_available(&mut self, shard: ShardId, is_available: bool) {
        self.raw[usize::from(shard.0)].is_unavailable = !is_available;
    }

    /// An unclean election: everything from `end` on is lost, although it was acknowledged.
    pub fn truncate(&mut self, shard: ShardId, end: u64) {
        let partition = &mut self.raw[usize::from(shard.0)];
        partition.records.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        partition.truncated_from = Some(partition.truncated_from.map_or(end, |before| before.min(end)));
    }

    /// Where an unclean election has cut the partition, if one did.
    pub fn truncated_from(&self, shard: ShardId) -> Option<u64> {
        self.original(shard).truncated_from
    }

    /// Partitions of an outbound topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.out_partitions.get(topic).copied().unwrap_or(0)
    }

    /// (topic, partition) → its end, for everything that the window writer reads.
    pub fn outbound_ends(&self) -> impl Iterator<Item = ((&'static str, i32), i64)> {
        let topics = [WINDOW_COUNTS, LATE_CLICKS].into_iter();
        let partitions = topics.flat_map(|topic| (0..self.partitions(topic)).map(move |partition| (topic, partition)));
        partitions.map(|at| (at, self.out.get(&at).map_or(0, Vec::len) as i64))
    }

    /// An outbound partition from `from` on, at most `records_max`.
    pub fn read_out(&self, topic: &'static str, partition: i32, from: i64, records_max: usize) -> &[StoredRecord] {
        let records = self.out.get(&(topic, partition)).map_or(&[][..], Vec::as_slice);
        let first = usize::try_from(from).unwrap_or(0).min(records.len());
        let last = first.saturating_add(records_max).min(records.len());
        &records[first..last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn record(value: u8) -> OutRecord {
        OutRecord { topic: RAW_CLICKS, partition: Some(1), key: Vec::new(), value: vec![value] }
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened_in_whole_in_part_or_not_at_all() {
        for (fate, written) in
            [(Fate::WrittenUnknown, 2), (Fate::HalfWrittenUnknown, 1), (Fate::Lost, 0), (Fate::WrittenTwice, 4)]
        {
            let mut log = SimLog::new(2);
            let answer = log.publish(&[record(1), record(2)], 5, fate);
            assert_eq!(answer.is_ok(), fate == Fate::WrittenTwice);
            assert_eq!(log.end_offset(SHARD), Ok(written), "{fate:?}");
        }
    }

    #[test]
    fn what_was_cut_off_is_an_error_to_whoever_has_read_beyond_it() {
        let mut log = SimLog::new(2);
        for arrival_ms in 0..5 {
            log.append(SHARD, arrival_ms, [0_u8].as_slice().into());
        }
        assert_eq!(log.read(SHARD, 3, 9).unwrap().len(), 2);
        assert_eq!(log.read(SHARD, 5, 9).unwrap().len(), 0);
        log.truncate(SHARD, 3);
        assert!(matches!(log.read(SHARD, 5, 9), Err(LogError::OffsetLost { offset: 5, .. })));
        assert_eq!(log.truncated_from(SHARD), Some(3));
    }

    #[test]
    fn a_topic_that_is_made_again_is_empty_and_the_oracles_know_the_former_one() {
        let mut log = SimLog::new(2);
        log.append(SHARD, 1, [0_u8].as_slice().into());
        let before = log.id();
        log.make_again();
        assert!(log.id() != before && log.is_lost(SHARD));
        assert_eq!((log.end_offset(SHARD), log.held(SHARD).len()), (Ok(0), 1));
    }

    #[test]
    fn a_partition_without_a_leader_answers_nobody_and_takes_nothing() {
        let mut log = SimLog::new(2);
        log.set_available(SHARD, false);
        assert!(log.publish(&[record(1)], 0, Fate::Written).is_err() && log.end_offset(SHARD).is_err());
        log.set_available(SHARD, true);
        assert_eq!(log.end_offset(SHARD), Ok(0));
    }
}
