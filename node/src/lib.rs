//! One member of a clicktally cluster: the actors, their shells to Kafka, Raft and PostgreSQL, and the command line.
//!
//! In data-path order.

pub mod config;

pub mod actor_threads;
pub mod cluster;

pub mod shard;

pub mod sink;

pub mod budget;

pub mod cluster_node;
pub mod database;
pub mod member;

pub mod bench;
pub mod load;

pub mod cli;
pub mod up;
