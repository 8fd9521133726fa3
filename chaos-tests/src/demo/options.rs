//! The options of the demo.

use std::path::PathBuf;

use clap::Parser;

/// The main job of clicktally on three nodes, with a kill in mid-stream; exits 0 only if the numbers agree.
#[derive(Debug, Clone, Parser)]
#[command(name = "demo")]
pub struct DemoOptions {
    /// Clicks to send, at least.
    #[arg(long, default_value_t = 2_000_000)]
    pub clicks: u64,
    /// Clicks per second; 0: as fast as they are acknowledged.
    #[arg(long, default_value_t = 15_000)]
    pub rate: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Ads that get exactly 1,000 clicks a minute, shown as a grid at the end.
    #[arg(long, default_value_t = 10)]
    pub steady_ads: u64,
    /// How long a window takes corrections; the product's default is 15 minutes, the demo's lets a window's whole life
    /// be seen.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub allowed_lateness_s: u64,
    /// Where the numbers go, as JSON.
    #[arg(long, default_value = "target/demo/report.json", value_name = "FILE")]
    pub report: PathBuf,
    /// Data of log, database and nodes; emptied at the start.
    #[arg(long, default_value = "target/demo/data", value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Stay up at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}
