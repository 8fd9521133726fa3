//! Apache Kafka: the adapter of the seam [`ClickLog`], and every client that this system makes.
//!
//! Reads: topic partitions by offset, never by consumer group. Writes: topics, idempotently. Promises: an offset that
//! the log does not hold is an error, never a skip. On restart: nothing to restore; offsets live in replicated state
//! alone.
//!
//! This crate is nested under `proto`, which declares the seam. The stream (`node`) and the archive (`billing`) both
//! read the log through it, and neither of those may depend on the other.
//!
//! `connection` makes the clients and is the only module that knows their settings. `kafka_log` is the adapter.
//! `partition_readers` reads, for it and for the archive: with `direct`, a fetcher of our own, or with
//! `librdkafka_reader`. `rereading` reads damaged batches again, for both.
//!
//! [`ClickLog`]: clicktally_proto::click_log::ClickLog

pub mod connection;

mod client_error;
mod kafka_log;
mod topic_settings;
mod topics;

mod direct;
mod librdkafka_reader;
mod partition_queue;
mod partition_readers;
mod rereading;

pub use client_error::log_error;
pub use connection::KafkaConnection;
pub use kafka_log::{KafkaLog, KafkaLogSettings};
pub use partition_readers::{FetchBy, PartitionReaders};
pub use topics::WRITTEN_RECORD_BYTES_MAX;
