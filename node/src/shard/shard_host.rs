//! Runs the shards that the groups assign to this node, on a few threads of their own; a shard never moves between threads.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_proto::shard_key::ShardId;
use clicktally_raft_store::group::Group;
use futures::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shard_life::ShardLife;
use crate::actor_threads::ActorThreads;

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
    watch: JoinHandle<()>,
    threads: Arc<ActorThreads>,
    lives: TaskTracker,
}

/// What every life of this host is given.
struct Watcher {
    config: ShardHostConfig,
    log: Arc<dyn ClickLog>,
    clock: Arc<dyn Clock>,
    threads: Arc<ActorThreads>,
    lives: TaskTracker,
    stop: CancellationToken,
}

impl ShardHost {
    /// Starts counting whatever `groups` (this node's replicas) assign to this node, now and later. The assignments are watched
    /// on the caller's runtime, the counting has its own threads.
    pub fn start(
        config: ShardHostConfig,
        groups: Vec<Arc<Group>>,
        log: Arc<dyn ClickLog>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<ShardHost> {
        let threads = Arc::new(ActorThreads::start("shards", config.threads)?);
        let (stop, lives) = (CancellationToken::new(), TaskTracker::new());
        let watcher =
            Watcher { config, log, clock, threads: Arc::clone(&threads), lives: lives.clone(), stop: stop.clone() };
        let watch = tokio::spawn(async move {
            join_all(groups.into_iter().map(|group| watcher.watch_assignments(group))).await;
        });
        Ok(ShardHost { stop, watch, threads, lives })
    }

    /// Stops counting at once; what no checkpoint holds yet is read again by the next owner.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.watch.await {
            tracing::error!(%error, "the watch over shard assignments had ended");
        }
        self.lives.close();
        self.lives.wait().await;
        // Joins the threads: not on a thread that others need.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self.threads)).await {
            tracing::error!(%error, "the counting threads did not stop");
        }
    }
}

impl Watcher {
    /// Keeps the running lives equal to what the replica says this node owns.
    async fn watch_assignments(&self, group: Arc<Group>) {
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
                let token = self.stop.child_token();
                running.insert(shard, (epoch, token.clone()));
                let life = ShardLife {
                    shard,
                    epoch,
                    group: Arc::clone(&group),
                    log: Arc::clone(&self.log),
                    clock: Arc::clone(&self.clock),
                    checkpoint_interval: self.config.checkpoint_interval,
                    stop: token,
                };
                let lives = self.lives.clone();
                let begin = move || drop(lives.spawn_local(life.live()));
                if let Err(stopped) = self.threads.run(usize::from(shard.0), begin).await {
                    tracing::error!(shard = shard.0, error = %stopped, "cannot start a shard");
                    return;
                }
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { break },
                () = self.stop.cancelled() => break,
            }
        }
        // Dropping a token does not cancel it: a replica that has gone takes its shards with it.
        running.values().for_each(|(_, life)| life.cancel());
    }
}
