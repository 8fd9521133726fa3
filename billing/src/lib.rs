//! What is owed, and the bytes that prove it: the archive of the raw log, the nightly batch over it, the ledger, invoices, and
//! the reconciliation of the batch with the stream.
//!
//! An independent codebase on purpose: it shares definitions with the stream (the record schema, the partitioner, money) and none
//! of its counting code, so that their agreement means something.
//!
//! In data-path order.

pub mod day;
pub mod error;
pub mod metrics;
pub mod postgres;

pub mod archive;
pub mod batch;
pub mod invoice;
pub mod reconcile;
pub mod statement;

pub use day::Day;
pub use error::{BillingError, NextMove};
