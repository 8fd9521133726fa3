//! The raw log and the outbound topics: the only part of the workspace that knows Kafka's client, and, in `direct`,
//! Kafka's protocol.
//!
//! Reads: topic partitions by offset, never by consumer group. Writes: topics, idempotently. Promises: an offset that the log
//! does not hold is an error, never a skip. On restart: nothing to restore; offsets live in replicated state alone.

mod direct;
mod kafka_log;
mod librdkafka_reader;
mod partition_queue;
mod topics;

pub use kafka_log::require_offset;
pub use kafka_log::{FetchBy, KafkaLog, KafkaLogSettings, RECORD_BYTES_MAX};
pub use topics::{LATE_CLICKS_PARTITIONS, QUARANTINE_PARTITIONS, WINDOW_COUNTS_PARTITIONS};
