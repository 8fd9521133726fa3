//! What one node does when it dies, or when its disk does. One program, so that it links once.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.
#![allow(clippy::disallowed_methods)] // A test looks behind the Storage seam.

mod crash_points;
mod log_size;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod one_node;
mod storage_faults;
