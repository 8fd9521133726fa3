//! This node as a member, in the order of its life: opening its seams, making itself known, telling the other nodes
//! what it carries, placing the shards and the leadership of the groups it leads, and leaving in order.

pub mod cluster_node;
pub mod member;

pub mod membership;
pub mod presence;

pub mod leadership_keeper;
pub mod placement_actor;

pub mod departure;

mod metrics;
