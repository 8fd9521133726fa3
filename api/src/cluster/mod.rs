//! The cluster as this node's replicas see it, and the commands that change its membership and placement.
//!
//! *Reads* the local replicas and heartbeats. *Writes* members and drains through Raft, group by group: a request
//! that fails half-way is safe to repeat.

pub mod cluster_view;
pub mod drain;
pub mod hot_keys;
pub mod members;
