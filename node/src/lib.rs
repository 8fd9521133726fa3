//! One member of a clicktally cluster: the actors, their shells to Kafka, Raft and PostgreSQL, and the command line.
//!
//! The modules are in data-path order.

pub mod config;

pub mod actor_threads;
pub mod halts;
pub mod log_clock;
pub mod retry;

pub mod shard;

pub mod sink;

pub mod budget;

pub mod duties;

pub mod cluster;

pub mod tools;

pub mod cli;
