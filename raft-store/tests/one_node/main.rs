//! Tests of one node that crashes or whose disk fails. They are one program, so that it links once.

#![allow(clippy::unwrap_used)] // A test and its helpers fail by panicking.
#![allow(clippy::disallowed_methods)] // A test reads and changes files below the Storage seam.

mod crash_points;
mod log_size;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod one_node;
mod storage_faults;
