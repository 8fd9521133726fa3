//! Counts for people: the batch's view where it exists, else the replicated state, else what the stream left in PostgreSQL.
//!
//! *Reads* the local replicas, `reports.ad_minute`, `billing.batch_ad_minute`. *Writes* nothing. *Promises*: no answer mixes two
//! views of one (campaign, minute), and each says how fresh it is.

pub mod minute_range;

pub mod ad_count;
pub mod group_view;
pub mod history;
pub mod minute_source;

pub mod aggregated_count;
pub mod top_k;
