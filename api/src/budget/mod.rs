//! Budget checks by HTTP: "may I show this campaign?", asked before every impression.
//!
//! *Reads* the answers of a [`crate::ports::BudgetLane`]. *Promises*: an answer that is late, missing or expired is
//! sent as *pause*, by the one function [`clicktally_budget::close`].

pub mod check_metrics;
pub mod post_check;
