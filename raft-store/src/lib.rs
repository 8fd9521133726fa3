//! The machinery of replicated state: Raft groups over one durable log, their snapshots and their peers. The crate
//! `clicktally-state` has what the groups agree on and the rules that change it.
//!
//! Nothing outside this crate sees openraft, raft-engine or the peers' wire format. Inside it, only [`disk_storage`]
//! sees a disk, and only [`peers::transport`] a peer.
//!
//! From the disk upwards; each room uses only those above it.

pub mod metrics_registry;

pub mod blocking;
mod fail_stop;
mod raft_metrics;
mod type_config;

pub mod disk_storage;
pub mod storage;

mod group_log;
mod snapshots;

pub mod peers;

pub mod group;

mod healing;

pub mod serving;

mod open_error;
pub mod store;
pub mod store_config;

#[cfg(test)]
mod at_size;

pub use fail_stop::{FAIL_STOP_EXIT_CODE, FailStopOnPanic, on_fail_stop};
pub use group::state_machine::APPLYING_NEWER;
pub use open_error::OpenError;
pub use peers::messages::{MemberChange, MembersSeen};
