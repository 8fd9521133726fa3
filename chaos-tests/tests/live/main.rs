//! Whole clusters of real processes on real Kafka and real PostgreSQL. One program, so that it links once; one trial
//! at a time.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod broken_links;
mod clear_errors;
mod elasticity;
mod event_time;
mod fail_points;
mod full_disk;
mod hot_key;
mod load_generator;
mod membership;
mod memory_budget;
mod node_faults;
mod real_log;
mod replay;
mod service_faults;
mod snapshot_install;
mod up;
mod users_and_costs;
