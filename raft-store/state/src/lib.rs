//! The replicated state of a group, and the rules that change and judge it. Pure: facts and commands go in, state and
//! decisions come out.
//!
//! What must be absent here: a runtime, sockets, files, consensus, clocks. The crate depends on none of them, so the
//! compiler proves that apply does no I/O. The machinery around it is `clicktally-raft-store`.

pub mod apply;
pub mod catalogue;
mod check;
pub mod group_state;
mod head;
pub mod invariants;
pub mod leadership;
pub mod limits;
pub mod liveness;
pub mod placement;
mod publication;
mod room;
pub mod roster;
mod seen;
pub mod shards;
pub mod snapshot;
pub mod windows;

#[cfg(test)]
mod at_size;
