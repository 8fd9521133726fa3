//! Whole clusters of real processes on real Kafka and real PostgreSQL. One program, so that it links once; one trial at a time.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod broken_links;
mod clear_errors;
mod elasticity;
mod fail_points;
mod full_disk;
mod load_generator;
mod membership;
mod node_faults;
mod real_log;
mod service_faults;
mod snapshot_install;
mod up;
