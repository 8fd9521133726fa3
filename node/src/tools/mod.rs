//! Verbs of the binary that are not a cluster member: the load generator, the bench, and a whole local system.

pub mod bench;
pub mod load;
pub mod up;
