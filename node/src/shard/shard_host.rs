//! Runs the shards that the groups assign to this node, on a few threads of their own.
//!
//! Each thread is a current-thread runtime with a `LocalSet`: actors start there without actix's own system, and a shard never
//! moves between threads. One more thread watches the local replicas' assignments.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_proto::shard_key::ShardId;
use clicktally_raft_store::group::Group;
use futures::future::join_all;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shard_life::ShardLife;

/// Assignments under way to one thread.
const LIVES_QUEUED_MAX: usize = 64;

#[derive(Debug, Clone)]
pub struct ShardHostConfig {
    /// How often a shard's counts become one proposal. What a dead owner's successor must read again, and how old a count is.
    pub checkpoint_interval: Duration,
    /// Counting threads, at least 1.
    pub threads: usize,
}

impl Default for ShardHostConfig {
    fn default() -> ShardHostConfig {
        ShardHostConfig { checkpoint_interval: Duration::from_secs(1), threads: 1 }
    }
}

pub struct ShardHost {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl ShardHost {
    /// Starts counting whatever `groups` (this node's replicas) assign to this node, now and later.
    pub fn start(
        config: ShardHostConfig,
        groups: Vec<Arc<Group>>,
        log: Arc<dyn ClickLog>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<ShardHost> {
        assert!(config.threads > 0, "shards need a thread");
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        let mut workers = Vec::new();
        for number in 0..config.threads {
            let (sender, receiver) = mpsc::channel(LIVES_QUEUED_MAX);
            workers.push(sender);
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let work = move || LocalSet::new().block_on(&runtime, host_lives(receiver));
            threads.push(Builder::new().name(format!("shards-{number}")).spawn(work)?);
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let watch = {
            let stop = stop.clone();
            move || {
                let watches = groups.into_iter().map(|group| {
                    let (log, clock) = (Arc::clone(&log), Arc::clone(&clock));
                    watch_assignments(&config, group, log, clock, &workers, &stop)
                });
                runtime.block_on(join_all(watches));
            }
        };
        threads.push(Builder::new().name("shard-watch".into()).spawn(watch)?);
        Ok(ShardHost { stop, threads })
    }

    /// Stops counting at once; what no checkpoint holds yet is read again by the next owner.
    pub async fn stop(self) {
        self.stop.cancel();
        let threads = self.threads;
        let join = move || threads.into_iter().filter_map(|thread| thread.join().err()).count();
        match tokio::task::spawn_blocking(join).await {
            Ok(0) => {}
            Ok(panicked) => tracing::error!(panicked, "threads of the shard host had panicked"),
            Err(error) => tracing::error!(%error, "the shard host did not stop"),
        }
    }
}

/// One thread: runs lives until the watcher is gone and the last life has ended.
async fn host_lives(mut lives: mpsc::Receiver<ShardLife>) {
    let running = TaskTracker::new();
    while let Some(life) = lives.recv().await {
        running.spawn_local(life.live());
    }
    running.close();
    running.wait().await;
}

/// Keeps the running lives equal to what the replica says this node owns.
async fn watch_assignments(
    config: &ShardHostConfig,
    group: Arc<Group>,
    log: Arc<dyn ClickLog>,
    clock: Arc<dyn Clock>,
    workers: &[mpsc::Sender<ShardLife>],
    stop: &CancellationToken,
) {
    let mut applied = group.applied();
    let mut running: BTreeMap<ShardId, (Epoch, CancellationToken)> = BTreeMap::new();
    let node = group.node();
    loop {
        // Seen before the state is read, so that a change in between is looked at again.
        applied.mark_unchanged();
        let owned: BTreeMap<ShardId, Epoch> = group.read(|state| {
            let own = state.shards().iter().filter(|(_, entry)| entry.owner == Some(node));
            own.map(|(&shard, entry)| (shard, entry.epoch)).collect()
        });
        running.retain(|shard, (epoch, life)| {
            let is_still_owned = owned.get(shard) == Some(epoch);
            if !is_still_owned {
                life.cancel();
            }
            is_still_owned
        });
        for (shard, epoch) in owned {
            if running.contains_key(&shard) {
                continue;
            }
            let token = stop.child_token();
            running.insert(shard, (epoch, token.clone()));
            let life = ShardLife {
                shard,
                epoch,
                group: Arc::clone(&group),
                log: Arc::clone(&log),
                clock: Arc::clone(&clock),
                checkpoint_interval: config.checkpoint_interval,
                stop: token,
            };
            let worker = &workers[usize::from(shard.0) % workers.len()];
            if worker.send(life).await.is_err() {
                tracing::error!(shard = shard.0, "a counting thread is gone");
                return;
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    // Dropping a token does not cancel it: a replica that has gone takes its shards with it.
    running.values().for_each(|(_, life)| life.cancel());
}
