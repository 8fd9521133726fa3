//! This node as a member: announcing itself, and, where it leads a group, placing that group's shards.

pub mod membership;
pub mod placement_actor;
