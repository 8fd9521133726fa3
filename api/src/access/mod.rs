//! Who calls, and how much of a node callers may use at once.
//!
//! *Reads* the headers of a request. *Promises*: one source cannot use another's event ids, and captures in flight
//! are limited.

pub mod capture_slots;
pub mod source;
