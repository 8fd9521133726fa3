//! The cluster in a simulation: everything that happens, faults included, follows from one number, and the same number
//! always tells the same story.
//!
//! First what the tiers share, in the order of a run, then the tiers.

pub mod edition;
pub mod foreign_id;
pub mod random;
pub mod traffic;
pub mod transactions;

pub mod sim_log;
pub mod sim_sink;

pub mod click_oracle;
pub mod commands;
pub mod recount;
pub mod trace;

pub mod report;

pub mod billing;
pub mod core;
pub mod nodes;

pub mod tier;

pub mod campaign;
pub mod mutants;
