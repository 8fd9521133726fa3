//! Several nodes in one process, over real localhost HTTP/2 and a real log on disk.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.
#![allow(clippy::disallowed_methods)] // A test looks behind the Storage seam.

mod failover;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod links;
mod log_damage;
mod members;
mod replication;
mod snapshots;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod world;
