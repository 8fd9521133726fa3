//! `make bench-failover`: for how long some shard counts no click when a node dies, and when it stops in order.
//!
//! It runs three real nodes with the product's defaults, real Kafka and real PostgreSQL. A run kills (or stops) a node
//! that leads a group and owns shards, and sends one click to every shard at that moment. It waits until a survivor
//! reports each of them below its shard's committed offset. The modules are in the order of a run.

mod options;
mod probe;
mod report;

pub use options::FailoverOptions;
pub use report::{FailoverReport, KindReport};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use clicktally_proto::clock::{Clock, SystemClock};

use crate::cluster::{Cluster, ClusterOptions, binary_beside_this_program};
use crate::cluster_client::ClusterView;
use crate::eventually::eventually;
use crate::services::Services;
use probe::Probe;
use report::Run;

const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// `kill -9`.
    Killed,
    /// SIGTERM.
    Stopped,
}

impl Farewell {
    fn name(self) -> &'static str {
        match self {
            Farewell::Killed => "kill -9",
            Farewell::Stopped => "planned stop",
        }
    }
}

/// All runs of both kinds.
pub async fn run(options: &FailoverOptions) -> anyhow::Result<FailoverReport> {
    let dir = tempfile::Builder::new().prefix("clicktally-failover-").tempdir()?;
    let services = Services::for_tests(dir.path()).await?;
    let cluster_options =
        ClusterOptions { groups: options.groups, checkpoint_interval_ms: None, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(dir.path(), &binary_beside_this_program()?, &services, cluster_options)?;
    cluster.start().await?;
    let mut probe = Probe::new(&services.kafka.bootstrap(), options.groups)?;
    let mut report = FailoverReport { groups: options.groups, kinds: Vec::new() };
    for farewell in [Farewell::Killed, Farewell::Stopped] {
        let mut runs = Vec::new();
        for _ in 0..options.runs {
            let run = run_once(&mut cluster, &mut probe, farewell).await.with_context(|| cluster.log_tails())?;
            show_progress(farewell, &run);
            runs.push(run);
        }
        report.kinds.push(KindReport::new(farewell.name(), runs)?);
    }
    cluster.stop().await?;
    Ok(report)
}

async fn run_once(cluster: &mut Cluster, probe: &mut Probe, farewell: Farewell) -> anyhow::Result<Run> {
    let clock = SystemClock;
    let (victim, owned) = leader_with_shards(cluster).await?;
    let survivors = cluster.nodes.iter().filter(|node| node.id != victim).map(|node| node.url.clone()).collect();
    let survivors = cluster.client.through(survivors);

    let asked_at = clock.monotonic();
    let undisturbed = probe.click_every_shard().await?.until_counted(&survivors, RECOVERY_DEADLINE).await?;

    let gone_at = clock.monotonic();
    let node = cluster.node(victim)?;
    let measure = async { probe.click_every_shard().await?.until_counted(&survivors, RECOVERY_DEADLINE).await };
    let recovered = match farewell {
        Farewell::Killed => {
            node.kill().await;
            measure.await?
        }
        Farewell::Stopped => {
            let (stopped, recovered) = tokio::join!(node.stop(), measure);
            stopped?;
            recovered?
        }
    };
    cluster.node(victim)?.start(&[]).await?;
    let slowest = |counted: &BTreeMap<u16, Duration>, since: Duration, is_wanted: &dyn Fn(u16) -> bool| {
        let wanted = counted.iter().filter(|(shard, _)| is_wanted(**shard));
        wanted.map(|(_, at)| at.saturating_sub(since).as_millis()).max().unwrap_or(0)
    };
    Ok(Run {
        victim,
        shards: owned.len(),
        undisturbed_ms: slowest(&undisturbed, asked_at, &|_| true),
        moved_ms: slowest(&recovered, gone_at, &|shard| owned.contains(&shard)),
        recovered_ms: slowest(&recovered, gone_at, &|_| true),
    })
}

/// The leader of the first group and the shards it owns, once the cluster is complete and at rest.
async fn leader_with_shards(cluster: &Cluster) -> anyhow::Result<(u64, BTreeSet<u16>)> {
    cluster.wait_ready().await?;
    eventually("shards are spread and none is moving", RECOVERY_DEADLINE, async || {
        let view = cluster.client.cluster().await?;
        anyhow::ensure!(is_at_rest(&view, cluster.nodes.len()), "{:?}", view.nodes);
        let leader = view.groups.first().and_then(|group| group.leader).context("the first group has no leader")?;
        let owned = view.shards().into_iter().filter(|(_, shard)| shard.owner == Some(leader)).map(|(shard, _)| shard);
        Ok::<_, anyhow::Error>((leader, owned.collect()))
    })
    .await
}

fn is_at_rest(view: &ClusterView, nodes: usize) -> bool {
    let shards = view.shards();
    let share = shards.len() / nodes;
    view.nodes.len() == nodes
        && view.nodes.iter().all(|node| node.shards + 2 >= share && node.shards > 0)
        && shards.values().all(|shard| shard.heir.is_none())
        && view.groups.iter().all(|group| group.leader.is_some())
}

#[allow(clippy::print_stderr)] // A run takes seconds, so it shows its progress.
fn show_progress(farewell: Farewell, run: &Run) {
    let Run { victim, shards, undisturbed_ms, moved_ms, recovered_ms } = run;
    eprintln!(
        "{}: node {victim}; its {shards} shards counted on after {moved_ms} ms, all after {recovered_ms} ms \
         ({undisturbed_ms} ms before it)",
        farewell.name(),
    );
}
