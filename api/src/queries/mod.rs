//! Counts of clicks. The batch answers where a run is complete, then the replicated state, then the rows that the
//! stream wrote to PostgreSQL.
//!
//! *Reads* the local replicas, `reports.ad_minute`, `billing.batch_ad_minute`. *Writes* nothing. *Promises*: no answer
//! mixes two views of one (campaign, minute), and each states how fresh it is.

pub mod minute_range;

pub mod ad_count;
pub mod group_view;
pub mod history;
pub mod minute_source;

pub mod aggregated_count;
pub mod top_k;
