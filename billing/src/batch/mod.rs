//! The nightly batch: what a day's clicks are, and what they cost, from the archive alone.
//!
//! Reads: exactly the manifest's files that can hold the day, and the catalogue's terms. Writes: one PostgreSQL transaction that
//! replaces the day's draft results. Promises: the same files and terms give the same rows; what is finalised never changes, a
//! later run writes a memo of the difference. On restart: run it again.

mod cells;
mod clicks_sql;
mod commit;
mod run;
mod terms;

pub(crate) use clicks_sql::{LateClick, ShardQuery, by_shard};
pub(crate) use commit::BILLING_LOCK;
pub use run::{BatchOptions, BatchSummary, run};
pub use terms::{Terms, TermsInterval, TermsTimeline};
