//! The options of the failover bench.

use std::path::PathBuf;

use clap::Parser;

/// How long counting stands still when a node dies, and when it is stopped.
#[derive(Debug, Clone, Parser)]
#[command(name = "failover")]
pub struct FailoverOptions {
    /// How many runs of each kind.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Raft groups of the cluster; sixteen shards each.
    #[arg(long, default_value_t = 1)]
    pub groups: u16,
    /// Where the numbers go, as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}
