//! The cluster in a simulation: everything it does follows from one number, faults included, and the same number always tells the
//! same story.
//!
//! What both tiers share first, in the order of a run; then the tiers.

pub mod edition;
pub mod random;
pub mod traffic;

pub mod sim_log;
pub mod sim_sink;

pub mod click_oracle;
pub mod commands;
pub mod recount;
pub mod trace;

pub mod report;

pub mod core;
pub mod nodes;

pub mod tier;

pub mod campaign;
pub mod mutants;
