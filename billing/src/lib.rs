//! What is owed, and the bytes that prove it: the archive of the raw log, the nightly batch over it, the ledger,
//! invoices, and the reconciliation of the batch with the stream.
//!
//! An independent codebase on purpose: it shares definitions with the stream (the record schema, the partitioner,
//! money) and none of its counting code, so that their agreement means something. It decides; `clicktally_database`
//! has the SQL.
//!
//! In data-path order.

pub mod error;
pub mod metrics;

pub mod archive;

pub mod batch;
pub mod bill;
pub mod invoice;
pub mod ledger;

pub mod reconcile;

pub use clicktally_database::Day;
pub use error::BillingError;
