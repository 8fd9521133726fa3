//! What this node answers its peers, and what it announces to them without being asked.

pub mod announcer;
pub mod peer_service;

pub(crate) mod peer_server;
