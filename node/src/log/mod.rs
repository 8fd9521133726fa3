//! The raw log and the outbound topics: the only part of the workspace that knows Kafka's client.
//!
//! Reads: topic partitions by offset, never by consumer group. Writes: topics, idempotently. Promises: an offset that the log
//! does not hold is an error, never a skip. On restart: nothing to restore; offsets live in replicated state alone.

mod kafka_log;
mod partition_queue;
mod reader;
mod topics;

pub(crate) use kafka_log::require_offset;
pub use kafka_log::{KafkaLog, KafkaLogSettings, RECORD_BYTES_MAX};
pub use topics::{LATE_CLICKS_PARTITIONS, QUARANTINE_PARTITIONS, WINDOW_COUNTS_PARTITIONS};
