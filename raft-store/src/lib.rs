//! The machinery of replicated state: Raft groups over one durable log, their snapshots and their peers. What the groups agree on,
//! and the rules that change it, are in `clicktally-state`.
//!
//! Nothing outside this crate sees openraft, raft-engine or the peers' wire format; inside it, only [`disk_storage`] sees a disk, and
//! only [`peer_transport`] a peer. In data-path order.

pub mod announcer;
pub mod blocking;
pub mod group;
pub mod heartbeats;
pub mod storage;
pub mod store;
pub mod store_config;

mod group_core;
mod peer_messages;
mod peer_network;
pub mod peer_service;
pub mod peer_transport;

mod peer_server;

pub mod disk_storage;

pub mod metrics_registry;

#[cfg(test)]
mod at_size;
mod fail_stop;
mod group_log;
mod group_snapshots;
mod log_healing;
mod promises;
mod raft_metrics;
mod replica;
mod snapshot_healing;
mod snapshot_meta;
mod snapshot_transfer;
mod state_machine;
mod type_config;

pub use fail_stop::{FAIL_STOP_EXIT_CODE, on_fail_stop};
pub use peer_messages::MemberChange;
pub use state_machine::APPLYING_NEWER;
