//! This node as a member, in the order of its life. It opens its seams, makes itself known, and tells the other nodes
//! what it carries. It places the shards and the leadership of the groups it leads, and leaves in order.

pub mod cluster_node;
pub mod member;

pub mod membership;
pub mod presence;

pub mod leadership_keeper;
pub mod placement_actor;

pub mod departure;

mod metrics;
