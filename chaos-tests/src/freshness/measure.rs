//! One cluster per checkpoint interval, a load, and probes for as long as the load runs.

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clicktally_node::tools::load::{LoadOptions, run as run_load};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::probe::Prober;
use super::report::{Measured, percentiles};
use crate::cluster::{Cluster, ClusterOptions, binary_beside_this_program};
use crate::services::Services;

#[derive(Debug, Clone, Parser)]
pub struct FreshnessOptions {
    /// Clicks per second of the load beside the probes.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// How long the load runs, for each interval.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub seconds: u64,
    /// Checkpoint intervals in milliseconds; each gets a cluster of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 500, 250, 100])]
    pub checkpoint_ms: Vec<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A line of JSON for each interval instead of the table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Parser)]
struct LoadArguments {
    #[command(flatten)]
    options: LoadOptions,
}

/// Measures every interval, in the order given.
pub async fn run(options: &FreshnessOptions) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for &checkpoint_ms in &options.checkpoint_ms {
        let one = measure(options, checkpoint_ms).await;
        measured.push(one.with_context(|| format!("measuring with checkpoints every {checkpoint_ms} ms"))?);
    }
    Ok(measured)
}

async fn measure(options: &FreshnessOptions, checkpoint_ms: u64) -> anyhow::Result<Measured> {
    let dir = tempfile::Builder::new().prefix("clicktally-freshness-").tempdir()?;
    let mut services = Services::serving(dir.path()).await?;
    let cluster_options = ClusterOptions { checkpoint_interval_ms: Some(checkpoint_ms), ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(dir.path(), &binary_beside_this_program()?, &services, cluster_options)?;
    cluster.start().await?;
    let mut prober = Prober::start(cluster.client.clone(), ChaCha8Rng::seed_from_u64(options.seed)).await?;

    let cpu_before = cluster.cpu_time()?;
    let load = tokio::spawn(run_load(load_options(options, &services)?));
    let mut seen = Vec::new();
    while !load.is_finished() {
        seen.push(prober.probe(Duration::from_millis(checkpoint_ms)).await?);
    }
    let summary = load.await.context("the load panicked")??;
    let cpu = cluster.cpu_time()?.saturating_sub(cpu_before);

    cluster.stop().await?;
    services.postgres.stop().await?;
    services.kafka.stop().await?;
    anyhow::ensure!(!seen.is_empty(), "no probe was seen");
    let clicks = summary.sent as f64;
    Ok(Measured {
        checkpoint_ms,
        probes: seen.len(),
        clicks_per_s: clicks * 1e3 / (summary.elapsed_ms.max(1) as f64),
        cpu_s_per_million: cpu.as_secs_f64() * 1e6 / clicks.max(1.0),
        in_count: percentiles(seen.iter().map(|probe| probe.in_count).collect()),
        in_spend: percentiles(seen.iter().map(|probe| probe.in_spend).collect()),
    })
}

/// Through the log, packed, as the watcher writes under load: the measurement covers the way from there on.
fn load_options(options: &FreshnessOptions, services: &Services) -> anyhow::Result<LoadOptions> {
    let arguments = [
        "load".to_owned(),
        "--quiet".to_owned(),
        format!("--kafka={}", services.kafka.bootstrap()),
        format!("--rate={}", options.rate),
        format!("--clicks={}", options.rate * options.seconds),
        format!("--seed={}", options.seed),
        "--ads=10000".to_owned(),
    ];
    Ok(LoadArguments::try_parse_from(arguments)?.options)
}
