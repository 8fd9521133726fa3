//! The nightly batch: what a day's clicks are, and what they cost, from the archive alone.
//!
//! Reads: exactly the manifest's files that can hold the day, and the catalogue's terms. Writes: one PostgreSQL
//! transaction that replaces the day's draft results. Promises: the same files and terms give the same rows; what is
//! finalised never changes, a later run writes a memo of the difference. On restart: run it again.

mod bill_hash;
mod clicks_sql;
mod day_bill;
mod options;
mod run;
mod terms_wait;
mod write_results;

mod cell_columns;
mod totals;

pub(crate) use clicks_sql::{ShardQuery, by_shard};
pub use day_bill::{DayBill, UnbilledDay};
pub use options::BatchOptions;
pub use run::{BatchSummary, run};
pub use terms_wait::{ExportedTerms, exported_terms, wait_until_terms_exported};
