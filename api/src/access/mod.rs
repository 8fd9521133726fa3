//! Who calls, and how much of a node one kind of caller may take.
//!
//! *Reads* the headers of a request. *Promises*: one source cannot use another's event ids, and captures in flight are limited.

pub mod capture_slots;
pub mod source;
