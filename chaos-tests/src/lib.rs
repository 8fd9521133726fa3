//! Whole clusters of real processes on real Kafka and real PostgreSQL, faults injected into them, and the checks that
//! must hold whatever happens.
//!
//! In the order of a test: bring up, drive, break, wait, recount, check.

pub mod cluster;
pub mod newcomer;
pub mod node_process;
pub mod services;

pub mod cluster_client;
pub mod eventually;

pub mod database;
pub mod oracle;

pub mod checks;

pub mod trial;
pub mod trial_load;

pub mod simulation;

mod report_file;

pub mod demo;
pub mod failover;
pub mod freshness;
