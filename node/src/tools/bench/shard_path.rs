//! Measures the whole path: the node's own shard host reads everything in the topic until all of it is committed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_state::group_state::GroupState;
use tokio::runtime;
use tokio::sync::watch;

use super::cpu_time::{RAFT_THREADS, Reading, Shares};
use super::fill::Filled;
use super::replicas::Replicas;
use super::report::Rate;
use crate::actor_threads::ActorThreads;
use crate::halts::Halts;
use crate::log_clock::LogClock;
use crate::shard::{ShardHost, ShardHostConfig};

pub(super) struct Counted {
    pub(super) rate: Rate,
    pub(super) duplicates: u64,
    pub(super) cells: u64,
    pub(super) shares: Shares,
}

pub(super) async fn count(
    folder: &Path,
    log: Arc<dyn ClickLog>,
    clock: Arc<dyn Clock>,
    filled: &Filled,
    threads: usize,
) -> anyhow::Result<Counted> {
    let raft = runtime::Builder::new_multi_thread().worker_threads(2).thread_name(RAFT_THREADS).enable_all().build()?;
    let (folder, replica_clock) = (folder.to_owned(), Arc::clone(&clock));
    // The replicas have their own runtime, so that its threads serve only them.
    let started = tokio::task::spawn_blocking(move || {
        let replicas = raft.block_on(async {
            let replicas = Replicas::start(&folder, replica_clock).await?;
            replicas.assign().await?;
            anyhow::Ok(replicas)
        })?;
        anyhow::Ok((raft, replicas))
    });
    let (raft, replicas) = started.await??;
    let group = replicas.group()?;
    let started = clock.monotonic();
    let before = Reading::now();
    let config = ShardHostConfig { checkpoint_interval: Duration::from_secs(1) };
    let threads = ActorThreads::start("shards", threads)?;
    let halts = Arc::new(Halts::new(Arc::clone(&clock)));
    let (log_clock, stop) = (Arc::new(LogClock::new(Arc::clone(&clock))), watch::Sender::new(false));
    tokio::spawn(Arc::clone(&log_clock).keep(Arc::clone(&log), Arc::clone(&halts), stop.subscribe()));
    let groups = vec![Arc::clone(&group)];
    let host = ShardHost::start(config, groups, log, Arc::clone(&clock), log_clock, threads, halts);
    let mut applied = group.applied();
    while group.read(|state| outcomes(state).read) < filled.clicks {
        applied.changed().await.context("the replica stopped")?;
    }
    let (outcomes, windows) = group.read(|state| (outcomes(state), state.windows().clone()));
    // A replica adds cells up only when they are first read. That happens once for every cell, so it belongs to the
    // cost.
    let (mut cells, mut clicks) = (0_u64, 0);
    for (_, _, cell) in windows.values().flat_map(|window| window.cells()) {
        cells += 1;
        clicks += cell.clicks();
    }
    let took = clock.monotonic() - started;
    let after = Reading::now();
    host.stop().await;
    tokio::task::spawn_blocking(move || raft.block_on(replicas.stop())).await?;
    // Check the counts: a benchmark of wrong counts is meaningless.
    ensure!(outcomes.counted == filled.distinct, "counted {} of {} clicks", outcomes.counted, filled.distinct);
    ensure!(clicks == filled.distinct, "the windows hold {clicks} of {} clicks", filled.distinct);
    Ok(Counted {
        rate: Rate::of(filled.clicks, took, after.process_since(&before)),
        duplicates: outcomes.duplicate,
        cells,
        shares: after.shares_since(&before, filled.clicks),
    })
}

fn outcomes(state: &GroupState) -> OutcomeCounts {
    let mut all = OutcomeCounts::default();
    state.shards().values().for_each(|shard| all.add(&shard.outcomes));
    all
}
