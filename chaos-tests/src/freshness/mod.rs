//! `make bench-freshness`: how long after its acknowledgement a click is in `aggregated_count`, and in the budget's
//! spend, while a steady load runs on three nodes. It measures several checkpoint intervals and the cost of each.
//!
//! This is a measurement, not a test: it does not fail because a machine is slow.

mod measure;
mod probe;
mod report;

pub use measure::{FreshnessOptions, run};
pub use report::Measured;
