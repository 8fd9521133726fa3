//! The raw log read by a fetcher of our own: whole record batches off the socket, cut into records where they are counted.
//!
//! Reads: Kafka's Fetch, Metadata and ApiVersions, over one connection a broker for all of this node's partitions led there.
//! Writes: nothing. Promises: every record of a partition from the offset asked for on, once and in order, or an error; bounded
//! memory. On restart: nothing to restore. Reads uncommitted records too: this system uses no transactions of Kafka, so there are none.
//!
//! In data-path order: `connection` carries questions and answers, `leaders` says whom to ask, `fetch_plan` what to ask for,
//! `fetcher` asks, `fetch_answer` judges what came, `feed` queues it, `shard_reader` takes it apart with `compression` and
//! `record_batch`.

mod compression;
mod connection;
mod feed;
mod fetch_answer;
mod fetch_plan;
mod fetcher;
mod leaders;
mod record_batch;
mod shard_reader;

pub(super) use fetcher::Fetcher;
pub(super) use shard_reader::DirectShardReader;
