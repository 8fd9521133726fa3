//! Replicated state: Raft groups over one durable log, and the state machine that owns shard assignment, committed offsets,
//! merged windows, seen ids and stream spend.

pub mod apply;
pub mod placement;
pub mod state;

pub mod group;
pub mod heartbeats;
