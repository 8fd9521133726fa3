//! Replicates the state: Raft groups over one durable log, their snapshots and their peers. `clicktally-state` holds
//! the state itself and the rules that change it.
//!
//! Code outside this crate never sees openraft, raft-engine or the peers' wire format. Inside this crate, only
//! [`disk_storage`] uses a disk, and only [`peer_transport`] talks to a peer. The modules are listed in data-path
//! order.

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

pub use fail_stop::{FAIL_STOP_EXIT_CODE, on_fail_stop};
pub use group::state_machine::APPLYING_NEWER;
pub use open_error::OpenError;
pub use peers::messages::MemberChange;
