//! `clicktally load` sends clicks through a cluster's doors. It computes what must be counted without asking the
//! cluster.
//!
//! Reads: a seed and the wall clock, or a real log. Writes: `POST /v1/clicks` and the topic `raw_clicks`. Its summary
//! is the verb's result, on standard output. Promises: every planned click is acknowledged before the load ends, or the
//! load fails. A repeat after an unclear answer carries the same identity. The tally comes from the plan alone and
//! shares no counting code with the system.
//!
//! The modules follow a click's path: planned, tallied, sent through a door.

pub mod options;
pub mod plan;
pub mod playback;
pub mod tally;
pub mod token;

mod ad_mix;
mod door;
mod http_door;
mod log_door;
mod progress;
mod run;
mod steady_ads;

pub use options::{LoadOptions, OutOfRange};
pub use progress::LoadWatch;
pub use run::{LoadSummary, run, run_watched};
