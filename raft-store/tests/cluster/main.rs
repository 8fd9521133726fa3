//! Several nodes in one process, over real localhost HTTP/2 and a real log on disk.

#![allow(clippy::unwrap_used)] // A test and its helpers fail by panicking.
#![allow(clippy::disallowed_methods)] // A test reads and changes files below the Storage seam.

mod failover;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod links;
mod log_damage;
mod members;
mod replication;
mod snapshots;
#[allow(unreachable_pub)] // The test is one crate: nothing is reachable from outside.
mod world;
