//! Campaigns, their terms and their budgets.
//!
//! *Reads* the local replicas. *Writes* terms through Raft. *Promises*: a change that names a revision is applied to
//! that revision or not at all.

pub mod campaign_body;
pub mod campaigns;
