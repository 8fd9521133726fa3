//! The Log seam: what the counting path needs of the raw log, independent of any broker's client.
//!
//! In production this is Apache Kafka, through the adapter in the crate `clicktally-kafka`. The names of the topics are
//! part of the public contract.

use thiserror::Error;

use crate::event_time::UnixMillis;
use crate::identity::log_id::LogId;
use crate::identity::shard_key::ShardId;
use crate::next_move::NextMove;

pub const RAW_CLICKS: &str = "raw_clicks";
pub const WINDOW_COUNTS: &str = "window_counts";
pub const LATE_CLICKS: &str = "late_clicks";
pub const QUARANTINE: &str = "quarantine";
/// Carries nothing: the log's stamp on a record is its answer to the question for its time.
pub const LOG_CLOCK: &str = "log_clock";

/// One record of the raw log, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    pub offset: u64,
    /// When the log accepted the record (log-append time).
    pub arrival_ms: UnixMillis,
    /// A record that is too long for every decoder comes cut off, behind one byte more than
    /// [`RECORD_BYTES_MAX`](crate::click::record::RECORD_BYTES_MAX), or as an empty one.
    pub value: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    #[error("the log is unreachable: {0}")]
    Unavailable(String),
    /// The log no longer holds the offset asked for, or never did. Skipping it would lose clicks.
    #[error(
        "shard {} needs offset {offset}, which the log does not hold: {detail}; restore the records from the archive before \
         resuming",
        .shard.0
    )]
    OffsetLost { shard: ShardId, offset: u64, detail: String },
    /// The broker sends the same damaged records each time. Skipping them would lose clicks.
    #[error(
        "{RAW_CLICKS}, partition {}: what the broker sends from offset {offset} on is damaged, also when it is read again: \
         {detail}; let a broker with an undamaged copy lead the partition, then restart this node",
        .shard.0
    )]
    Damaged { shard: ShardId, offset: u64, detail: String },
    /// The topic was deleted and made again, or the brokers lost it. Its offsets name other records.
    #[error(
        "topic {RAW_CLICKS} now has the id {found}, and what is counted so far comes from the topic with the id {counted}: it was \
         deleted and made again, so the same offsets hold other clicks; bring the brokers' disks with the former topic back, then \
         restart this node"
    )]
    OtherLog { counted: LogId, found: LogId },
    /// The same call fails again until an operator acts.
    #[error("the log refused: {0}")]
    Fatal(String),
}

impl LogError {
    /// Never [`NextMove::Reject`]: whatever the log refuses, going on without it would lose clicks or counts.
    pub fn next_move(&self) -> NextMove {
        match self {
            LogError::Unavailable(_) => NextMove::Retry,
            LogError::OffsetLost { .. } | LogError::Damaged { .. } | LogError::OtherLog { .. } | LogError::Fatal(_) => {
                NextMove::Halt
            }
        }
    }
}

/// Reads one partition in order, from the offset at which it was opened. A reader that is not drained holds the fetcher
/// back.
///
/// Only committed records are readable. The markers of transactions, the records of aborted ones and compaction leave
/// holes in the offsets, also at the end of a partition. A hole is no loss: the log reports a loss by an error.
pub trait ShardReader: Send {
    /// Hands over at most `records_max` records that have arrived, and returns how many. Never waits.
    ///
    /// # Errors
    /// After an error every later call fails with the same error. Open another reader at the offset due, so that no
    /// record is skipped.
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError>;

    /// The next offset due: every readable record below it was handed over. It may lie beyond the last record's
    /// successor, because readers pass holes as well. It never goes back.
    fn position(&self) -> u64;
}

/// Opens readers and writes to topics. Calls may block on the network, so shells make them off the counting threads.
#[async_trait::async_trait]
pub trait ClickLog: Send + Sync {
    fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError>;

    /// The id of the raw topic, as the log answers now. `None`: its brokers give topics no ids (Kafka before 2.8).
    async fn log_id(&self) -> Result<Option<LogId>, LogError>;

    /// The end of what is readable in the shard, as the log answers now: the first offset of an open transaction, or
    /// the end of the partition. A reader whose position is this offset has proof that there is nothing more to read.
    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError>;

    /// The log's own time at some moment during the call: the clock that stamps [`LogRecord::arrival_ms`].
    async fn time_ms(&self) -> Result<UnixMillis, LogError>;

    /// Writes records, and returns once all of them are durable (acks=all). Repeating a failed call may duplicate
    /// records.
    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    pub topic: &'static str,
    /// `None`: the key's hash decides.
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}
