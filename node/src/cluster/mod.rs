//! This node as a member, in the order of its life: making itself known, telling the others what it carries, placing the shards and
//! the leadership of the groups it leads, and leaving in order.

pub mod membership;
pub mod presence;

pub mod leadership_keeper;
pub mod placement_actor;

pub mod departure;

mod metrics;
