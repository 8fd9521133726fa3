//! Replicated state: Raft groups over one durable log, and the state machine that owns shard assignment, committed offsets,
//! merged windows, seen ids and stream spend.
//!
//! Nothing outside this crate sees openraft, raft-engine or the peers' wire format; inside it, only [`disk_storage`] sees a disk, and
//! only [`peer_transport`] a peer. In data-path order.

pub mod apply;
pub mod placement;
pub mod state;
pub mod state_budget;
pub mod window;

pub mod announcer;
pub mod blocking;
pub mod group;
pub mod heartbeats;
pub mod leadership;
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
mod cell;
mod cell_run;
mod cell_runs;
mod fail_stop;
mod group_log;
mod group_snapshots;
mod log_healing;
mod promises;
mod raft_metrics;
mod replica;
mod snapshot;
mod snapshot_healing;
mod snapshot_transfer;
mod state_machine;
mod type_config;

pub use fail_stop::{FAIL_STOP_EXIT_CODE, on_fail_stop};
pub use peer_messages::{COMMAND_BYTES_MAX, MemberChange};
pub use state_machine::APPLYING_NEWER;
