//! Whole clusters of real processes on real Kafka and real PostgreSQL. One program, so that it links once; one trial
//! at a time.
//!
//! A trial's verdict must not depend on the speed of the machine. So a trial makes its condition happen:
//!
//! * it waits for what it has to see (`eventually`), and its load goes on until then (`TrialLoad`);
//! * it stops a process, holds a shard (`CLICKTALLY_HOLD`), or gives a lease that cannot run out;
//! * it sizes a backlog by what the product charges for it, not by how fast it is read.
//!
//! `HANG_MAX` bounds every wait, and no assertion compares times. `make trial NAME=… BESIDE=1` repeats a trial beside
//! busy loops.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod broken_links;
mod clear_errors;
mod elasticity;
mod event_time;
mod fail_points;
mod foreign_producers;
mod full_disk;
mod halted_parts;
mod hot_key;
mod load_generator;
mod membership;
mod memory_budget;
mod node_faults;
mod playback;
mod real_log;
mod replay;
mod service_faults;
mod snapshot_install;
mod up;
mod users_and_costs;
