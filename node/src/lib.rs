//! One member of a clicktally cluster: the actors, their shells to Kafka, Raft and PostgreSQL, and the command line.
//!
//! In data-path order.

pub mod config;

pub mod actor_threads;
pub mod cluster;
pub mod sink;

pub mod load;

pub mod log;
pub mod shard;
