//! The other nodes: what is said to them, over which transport, and what is heard from them.

pub mod heartbeats;
pub mod transport;

pub(crate) mod messages;
pub(crate) mod network;
pub(crate) mod snapshot_transfer;
