//! Money and its proof: where the stream and the batch differ.
//!
//! *Reads* the batch's tables in PostgreSQL. *Writes* nothing.

pub mod reconciliation;
