//! Runs the shards that the groups assign to this node, on a few dedicated threads. A shard never moves between
//! threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::blocking;
use clicktally_raft_store::group::Group;
use clicktally_state::shards::ShardEntry;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meters::ShardMeters;
use super::metrics::MoveCause;
use super::shard_life::{Arrival, Orders, ShardLife};
use crate::actor_threads::ActorThreads;
use crate::halts::{Halts, Part};
use crate::log_clock::LogClock;

/// How long shards may take to commit what they have read. After that the host stops without those commits.
const FINISH_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct ShardHostConfig {
    /// How often a shard's counts become one proposal. It bounds what a dead owner's successor must read again, and the
    /// age of a count.
    pub checkpoint_interval: Duration,
}

pub struct ShardHost {
    /// When cancelled, no new life begins, and the present ones commit what they have read and end.
    finish: CancellationToken,
    stop: CancellationToken,
    watch: JoinHandle<()>,
    threads: Arc<ActorThreads>,
    lives: TaskTracker,
    meters: Arc<ShardMeters>,
}

/// What the host gives to every life.
struct Watcher {
    config: ShardHostConfig,
    log: Arc<dyn ClickLog>,
    clock: Arc<dyn Clock>,
    log_clock: Arc<LogClock>,
    threads: Arc<ActorThreads>,
    lives: TaskTracker,
    meters: Arc<ShardMeters>,
    halts: Arc<Halts>,
    finish: CancellationToken,
    stop: CancellationToken,
}

/// A running life, as the watch sees it.
struct Running {
    epoch: Epoch,
    orders: watch::Sender<Orders>,
    stop: CancellationToken,
}

/// A shard as it was at the last look.
struct Seen {
    owner: Option<NodeId>,
    progress: (u64, u64),
    /// When its progress last changed, in monotonic time; `None` if this node has seen no change.
    committed_at: Option<Duration>,
}

impl ShardHost {
    /// Starts counting the shards that `groups` (this node's replicas) assign to this node, now and later. The caller's
    /// runtime watches the assignments; `threads` do the counting.
    pub fn start(
        config: ShardHostConfig,
        groups: Vec<Arc<Group>>,
        log: Arc<dyn ClickLog>,
        clock: Arc<dyn Clock>,
        log_clock: Arc<LogClock>,
        threads: ActorThreads,
        halts: Arc<Halts>,
    ) -> ShardHost {
        let threads = Arc::new(threads);
        let (finish, stop) = (CancellationToken::new(), CancellationToken::new());
        let (lives, meters) = (TaskTracker::new(), Arc::new(ShardMeters::default()));
        let watcher = Watcher {
            config,
            log,
            clock,
            log_clock,
            threads: Arc::clone(&threads),
            lives: lives.clone(),
            meters: Arc::clone(&meters),
            halts: Arc::clone(&halts),
            finish: finish.clone(),
            stop: stop.clone(),
        };
        let watch = tokio::spawn(async move {
            let watches = groups.into_iter().map(|group| {
                let part = Part::ShardWatch(group.id());
                halts.supervise(part, watcher.watch_assignments(group))
            });
            join_all(watches).await;
        });
        ShardHost { finish, stop, watch, threads, lives, meters }
    }

    pub fn meters(&self) -> Arc<ShardMeters> {
        Arc::clone(&self.meters)
    }

    /// Commits what has been read, within a deadline, and stops counting. The next owner reads again what no checkpoint
    /// holds.
    pub async fn stop(self) {
        self.finish.cancel();
        self.lives.close();
        let ended = async {
            if let Err(error) = self.watch.await {
                tracing::error!(%error, "the watch over shard assignments ended with an error");
            }
            self.lives.wait().await;
        };
        let mut ended = std::pin::pin!(ended);
        if tokio::time::timeout(FINISH_DEADLINE, ended.as_mut()).await.is_err() {
            tracing::info!("not all clicks read could be committed; the next owners read them again");
            self.stop.cancel();
            ended.await;
        }
        // Joining the threads blocks, so it happens on a thread that no other task needs.
        if let Err(error) = blocking::run(move || drop(self.threads)).await {
            tracing::error!(%error, "the counting threads did not stop");
        }
    }
}

impl Watcher {
    /// Keeps the running lives equal to the shards that the replica assigns to this node.
    async fn watch_assignments(&self, group: Arc<Group>) {
        let mut applied = group.applied();
        let mut running: BTreeMap<ShardId, Running> = BTreeMap::new();
        let mut seen: BTreeMap<ShardId, Seen> = BTreeMap::new();
        let node = group.node();
        loop {
            // Mark the change before reading the state, so that a change in between causes another look.
            applied.mark_unchanged();
            let shards: Vec<(ShardId, ShardSeat)> =
                group.read(|state| state.shards().iter().map(|(&shard, entry)| (shard, entry.into())).collect());
            let now = self.clock.monotonic();
            for (shard, seat) in shards {
                let arrival = note(&mut seen, shard, &seat, node, now);
                let is_running = running.get(&shard).is_some_and(|life| life.epoch == seat.epoch);
                if !is_running && let Some(life) = running.remove(&shard) {
                    life.stop.cancel();
                }
                if seat.owner != Some(node) {
                    if let Some(life) = running.remove(&shard) {
                        life.stop.cancel();
                    }
                    continue;
                }
                let orders = seat.heir.map_or(Orders::Count, Orders::HandTo);
                if let Some(life) = running.get(&shard) {
                    life.orders.send_if_modified(|current| std::mem::replace(current, orders) != orders);
                    continue;
                }
                match self.begin(&group, shard, seat.epoch, orders, arrival).await {
                    Some(life) => drop(running.insert(shard, life)),
                    None => return,
                }
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { break },
                () = self.stop.cancelled() => break,
                () = self.finish.cancelled() => {
                    for life in running.values() {
                        life.orders.send_replace(Orders::Finish);
                    }
                    return;
                }
            }
        }
        // Dropping a token does not cancel it. A replica that is gone must stop its shards.
        running.values().for_each(|life| life.stop.cancel());
    }

    async fn begin(
        &self,
        group: &Arc<Group>,
        shard: ShardId,
        epoch: Epoch,
        orders: Orders,
        arrival: Option<Arrival>,
    ) -> Option<Running> {
        let (orders, ordered) = watch::channel(orders);
        let stop = self.stop.child_token();
        let life = ShardLife {
            shard,
            epoch,
            group: Arc::clone(group),
            log: Arc::clone(&self.log),
            clock: Arc::clone(&self.clock),
            log_clock: Arc::clone(&self.log_clock),
            meters: Arc::clone(&self.meters),
            halts: Arc::clone(&self.halts),
            checkpoint_interval: self.config.checkpoint_interval,
            arrival,
            orders: ordered,
            stop: stop.clone(),
        };
        let lives = self.lives.clone();
        let begin = move || drop(lives.spawn_local(life.live()));
        if let Err(stopped) = self.threads.run(usize::from(shard.0), begin).await {
            let reason = format!("cannot start shard {}: {stopped}; restart this node", shard.0);
            self.halts.halted(Part::ShardWatch(group.id()), &reason);
            return None;
        }
        Some(Running { epoch, orders, stop })
    }
}

/// The part of an entry that the watch compares.
struct ShardSeat {
    owner: Option<NodeId>,
    heir: Option<NodeId>,
    was_heir: bool,
    epoch: Epoch,
    progress: (u64, u64),
}

impl From<&ShardEntry> for ShardSeat {
    fn from(entry: &ShardEntry) -> ShardSeat {
        let progress = (entry.committed_offset, entry.complete_to_ms);
        ShardSeat { owner: entry.owner, heir: entry.heir, was_heir: entry.was_heir, epoch: entry.epoch, progress }
    }
}

/// Notes how far a shard has come. Returns how it arrived if another node owned it at the last look.
fn note(
    seen: &mut BTreeMap<ShardId, Seen>,
    shard: ShardId,
    seat: &ShardSeat,
    node: NodeId,
    now: Duration,
) -> Option<Arrival> {
    let before = seen.get(&shard);
    let committed_at = match before {
        Some(before) if before.progress == seat.progress => before.committed_at,
        Some(_) => Some(now),
        None => None,
    };
    let is_arrival = seat.owner == Some(node) && before.is_some_and(|before| before.owner != Some(node));
    let cause = if seat.was_heir { MoveCause::Planned } else { MoveCause::Failover };
    let arrival = committed_at.filter(|_| is_arrival).map(|committed_at| Arrival { cause, committed_at });
    let progress = seat.progress;
    seen.insert(shard, Seen { owner: seat.owner, progress, committed_at });
    arrival
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(owner: NodeId, was_heir: bool, offset: u64) -> ShardSeat {
        ShardSeat { owner: Some(owner), heir: None, was_heir, epoch: Epoch(owner), progress: (offset, 0) }
    }

    #[test]
    fn a_move_is_paused_since_the_last_commit_of_the_former_owner() {
        let (shard, second) = (ShardId(1), Duration::from_secs(1));
        let mut seen = BTreeMap::new();
        let mut note = |seat: &ShardSeat, at: u32| note(&mut seen, shard, seat, 1, second * at);
        assert_eq!(note(&seat(2, false, 5), 1), None);
        assert_eq!(note(&seat(2, false, 9), 2), None);
        let arrival = note(&seat(1, true, 9), 4).unwrap();
        assert_eq!(arrival, Arrival { cause: MoveCause::Planned, committed_at: second * 2 });
        // The shard stays.
        assert_eq!(note(&seat(1, true, 12), 5), None);
        note(&seat(2, true, 13), 6);
        let back = note(&seat(1, false, 13), 9).unwrap();
        assert_eq!(back, Arrival { cause: MoveCause::Failover, committed_at: second * 6 });
    }

    #[test]
    fn a_shard_that_was_here_at_the_first_look_has_not_moved() {
        let mut seen = BTreeMap::new();
        assert_eq!(note(&mut seen, ShardId(1), &seat(1, false, 5), 1, Duration::ZERO), None);
    }
}
