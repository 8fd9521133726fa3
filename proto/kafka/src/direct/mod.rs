//! Reads the raw log with a fetcher of our own: takes whole record batches off the socket, and cuts them into records
//! on the thread that counts them.
//!
//! Reads: Kafka's Fetch, Metadata and ApiVersions. One connection to each broker serves all of this node's partitions
//! that the broker leads. Writes: nothing. Promises: every record of a partition from the offset asked for, once and in
//! order, or an error; bounded memory. On restart: nothing to restore.
//!
//! The isolation level is `read_committed`. This system writes no transactions, but other producers may. A broker
//! answers up to the first open transaction, and `aborted_transactions` leaves out what was aborted.
//!
//! In data-path order: `broker_connection` carries questions and answers, `leaders` knows which broker to ask,
//! `fetch_plan` decides what to ask for, `fetcher` asks, `fetch_answer` judges the answer, `feed` queues it, and
//! `shard_reader` takes it apart with `aborted_transactions`, `compression` and `record_batch`.

mod aborted_transactions;
mod broker_connection;
mod compression;
mod feed;
mod fetch_answer;
mod fetch_plan;
mod fetcher;
mod leaders;
mod record_batch;
mod shard_reader;
mod topic_id;

pub(super) use fetcher::Fetcher;
pub(super) use shard_reader::DirectShardReader;
pub(super) use topic_id::topic_id;
