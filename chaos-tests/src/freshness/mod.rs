//! `make bench-freshness`: how long after its acknowledgement a click is in `aggregated_count`, and in the budget's spend, while a
//! steady load runs on three nodes; for several checkpoint intervals, with what each costs.
//!
//! A measurement, not a test: nothing here fails because a machine is slow.

mod measure;
mod probe;
mod report;

pub use measure::{FreshnessOptions, run};
pub use report::Measured;
