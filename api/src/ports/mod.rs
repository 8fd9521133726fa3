//! What the node provides to this crate. Handlers know these traits, not the node's actors.

pub mod budget_lane;
pub mod group_rules;
pub mod halted;
pub mod id_minter;
pub mod own_shards;

pub use budget_lane::BudgetLane;
pub use halted::{HaltedPart, HaltedParts};
pub use own_shards::{OwnShard, OwnShards};
