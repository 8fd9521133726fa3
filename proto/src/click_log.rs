//! The Log seam: what the counting path needs of the raw log, and nothing of any broker's client.
//!
//! Production: Apache Kafka through one adapter, the crate `clicktally-kafka`. The names of the topics are part of the outside contract.

use thiserror::Error;

use crate::event_time::UnixMillis;
use crate::identity::shard_key::ShardId;

pub const RAW_CLICKS: &str = "raw_clicks";
pub const WINDOW_COUNTS: &str = "window_counts";
pub const LATE_CLICKS: &str = "late_clicks";
pub const QUARANTINE: &str = "quarantine";

/// One record of the raw log, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    pub offset: u64,
    /// When the log took it (log-append time).
    pub arrival_ms: UnixMillis,
    pub value: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// Passing; ask again.
    #[error("the log is unreachable: {0}")]
    Unavailable(String),
    /// The log no longer holds, or never held, the offset asked for: never skip, stop the shard and call somebody.
    #[error("shard {} needs offset {offset}, which the log does not hold: {detail}; restore it from the archive before resuming", .shard.0)]
    OffsetLost { shard: ShardId, offset: u64, detail: String },
    #[error("the log refused: {0}")]
    Fatal(String),
}

/// Reads one partition in order, from the offset it was opened at. Pull only: an undrained reader holds the fetcher back.
pub trait ShardReader: Send {
    /// Hands over at most `records_max` records that have arrived already; does not wait. Returns how many. After an error
    /// every further call fails with it: open another reader at the offset due, so that nothing is skipped.
    fn drain(&mut self, records_max: usize, take: &mut dyn FnMut(LogRecord<'_>)) -> Result<usize, LogError>;
}

/// Opens readers and writes to topics. Calls may block on the network; shells call them off the counting threads.
#[async_trait::async_trait]
pub trait ClickLog: Send + Sync {
    fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError>;

    /// The offset after the newest readable record of the shard, asked of the log now: the proof that a partition is empty
    /// beyond what was read.
    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError>;

    /// Writes records and returns once all of them are durable (acks=all); a repeat after an error may duplicate.
    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    pub topic: &'static str,
    /// `None`: by the key's hash.
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}
