//! Stage one: one shard = one partition, counted by one owner at a time.
//!
//! Reads: the shard's partition of `raw_clicks`. Writes: checkpoints (through its Raft group), `late_clicks`,
//! `quarantine`, and misrouted clicks back to their own partition. Promises: every click read has exactly one outcome,
//! decided in log order. Any owner decides the same. On restart: continues from replicated state, and re-reads only
//! records that no checkpoint holds.
//!
//! The rules come first (no I/O), then the shells.

pub mod aggregator;
pub mod commit_answer;
pub mod dedup;
pub mod log_identity;
pub mod meters;
pub mod out_records;
pub mod shard_state;
pub mod watermark;

#[cfg(test)]
mod groups_tests;
#[cfg(test)]
mod oracle_tests;

mod commit;
mod metrics;
mod shard_actor;
mod shard_host;
mod shard_life;

pub use dedup::LIVE_SPAN_MAX_MS;
pub use meters::ShardMeters;
pub use shard_host::{ShardHost, ShardHostConfig};
