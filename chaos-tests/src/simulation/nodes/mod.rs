//! Tier 1: whole nodes on simulated hosts, each with its own runtime, clock and disk, and a network between them.
//!
//! The node is that of production ([`clicktally_node::cluster::member`]): actors, checkpoints, openraft, snapshots,
//! placement, leadership, publishing. The simulation replaces what the node meets through its seams. Each story has a
//! process of its own, because a process has one world: [`run_story`].

mod builds;
mod committed;
mod entropy;
mod hosts;
mod shape;
mod world;

mod click_log;
mod database;
mod disk;
mod host_clock;
mod network;
mod operator;
mod probe;
mod process;
mod wire;

mod cures;
mod faults;
mod supervisor;
mod verdict;
mod watch;

mod apart;
mod run;

pub use apart::{ONE_SEED, run_story_apart};
pub use builds::levels_at_start;
pub use click_log::LoneLog;
pub use database::LoneTables;
pub use disk::{End as SimEnd, SimDisk};
pub use run::run_story;
