//! One ownership of one shard, from its assignment to its end: restore, count, and start again if memory and replicated
//! state differ.
//!
//! A planned end comes as an order. The actor commits what it has read and stops, and the owner itself assigns the
//! shard to its heir. So the heir finds everything in replicated state and reads no record twice. The shard pauses only
//! between that last commit and the heir's first.

use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::{ClickLog, ShardReader};
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{AssignShard, Command, Outcome, Rejection};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::blocking;
use clicktally_raft_store::group::Group;
use clicktally_state::shards::ShardEntry;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::commit_answer::{BACKOFF_MAX, BACKOFF_MIN};
use super::log_identity::{Recognised, recognise};
use super::meters::ShardMeters;
use super::metrics::{METRICS, MoveCause};
use super::shard_actor::{Finish, ShardActor, ShardEnd, ShardParts, Stop};
use super::shard_state::{ShardState, ShardTerms};
use crate::halts::{Halts, Part};
use crate::log_clock::LogClock;
use crate::retry::Backoff;

/// How long an owner may take to commit what it has read. After that the shard moves on, and the heir reads it again.
const LAST_COMMIT_DEADLINE: Duration = Duration::from_secs(2);
/// How often a halted shard reports its lag.
const LAG_PERIOD: Duration = Duration::from_secs(1);

/// What the owner of a shard must do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orders {
    Count,
    /// Commit what is read, then assign the shard to this node.
    HandTo(NodeId),
    /// Commit what is read, and end.
    Finish,
}

/// How a shard came here from another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) cause: MoveCause,
    /// When this node's replica saw the former owner's last commit, in monotonic time.
    pub(super) committed_at: Duration,
}

pub(super) struct ShardLife {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) group: Arc<Group>,
    pub(super) log: Arc<dyn ClickLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log_clock: Arc<LogClock>,
    pub(super) meters: Arc<ShardMeters>,
    pub(super) halts: Arc<Halts>,
    pub(super) checkpoint_interval: Duration,
    /// `None` if the shard had no owner before.
    pub(super) arrival: Option<Arrival>,
    pub(super) orders: watch::Receiver<Orders>,
    /// Cancelled when another node gets the shard, or the host stops.
    pub(super) stop: CancellationToken,
}

impl ShardLife {
    /// Runs inside a `LocalSet` until the shard is fenced, stopped or halted.
    pub(super) async fn live(mut self) {
        let shard = self.shard.0;
        METRICS.shards_owned.inc();
        self.meters.begin(self.shard, self.clock.monotonic());
        tracing::info!(shard, epoch = self.epoch.0, "counting");
        let mut backoff = Backoff::growing(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let orders = *self.orders.borrow_and_update();
            let end = match orders {
                Orders::Count => self.own().await,
                Orders::HandTo(heir) => self.hand_over(heir).await,
                Orders::Finish => break,
            };
            match end {
                // The orders decide what to do next.
                ShardEnd::Finished => {}
                ShardEnd::Restart(reason) => {
                    METRICS.checkpoint_failures.inc();
                    tracing::warn!(shard, reason, "starting again from replicated state");
                    tokio::select! {
                        () = backoff.wait() => {}
                        () = self.stop.cancelled() => break,
                    }
                }
                ShardEnd::Halted(reason) => {
                    if !is_broken(Mutant::HaltUnsaid) {
                        self.halts.halted(Part::Shard(self.shard), &reason);
                    }
                    let is_stopped = self.stand_still(orders).await;
                    self.halts.works(Part::Shard(self.shard));
                    if is_stopped {
                        break;
                    }
                }
                ShardEnd::Fenced | ShardEnd::Stopped => break,
            }
        }
        tracing::info!(shard, epoch = self.epoch.0, "no longer counting");
        METRICS.shards_owned.dec();
        METRICS.forget(self.shard);
        self.meters.end(self.shard);
    }

    /// Waits for other orders. A halted shard obeys them, because its heir may be able to go on. Returns true if it was
    /// stopped instead. Its lag grows while it waits, and is reported.
    async fn stand_still(&self, halted_under: Orders) -> bool {
        let mut orders = self.orders.clone();
        let mut ticks = tokio::time::interval(LAG_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return true,
                // The watch has ended if the host stops, which the token tells as well.
                Ok(_) = orders.wait_for(|orders| *orders != halted_under) => return false,
                _ = ticks.tick() => self.report_lag().await,
            }
        }
    }

    async fn report_lag(&self) {
        let committed = self.group.read(|state| state.shard(self.shard).map(|entry| entry.committed_offset));
        if let (Some(committed), Ok(end)) = (committed, self.log.end_offset(self.shard).await) {
            self.meters.lag(self.shard, end.saturating_sub(committed));
            METRICS.lag(self.shard, end.saturating_sub(committed));
        }
    }

    async fn own(&self) -> ShardEnd {
        let mut orders = self.orders.clone();
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            () = self.stop.cancelled() => return ShardEnd::Stopped,
            () = until_ordered(&mut orders) => return ShardEnd::Finished,
        };
        let parts = match prepared {
            Ok(parts) => parts,
            Err(end) => return end,
        };
        let (actor, mut ended) = ShardActor::new(parts);
        let address = actor.start();
        let panicked = || ShardEnd::Halted("the shard's actor panicked".into());
        tokio::select! {
            end = &mut ended => return end.unwrap_or_else(|_| panicked()),
            () = self.stop.cancelled() => {}
            () = until_ordered(&mut orders) => {
                // The actor may already have ended. Then its mailbox is closed, and `ended` holds its end.
                let _ = address.send(Finish).await;
                tokio::select! {
                    end = &mut ended => return end.unwrap_or_else(|_| panicked()),
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(LAST_COMMIT_DEADLINE) => {
                        tracing::warn!(shard = self.shard.0, "the last commit is slow; the heir reads its clicks again");
                        let _ = address.send(Stop).await;
                        return match ended.await.unwrap_or_else(|_| panicked()) {
                            ShardEnd::Stopped => ShardEnd::Finished,
                            end => end,
                        };
                    }
                }
            }
        }
        // The actor may already have ended. Then there is no mailbox to stop.
        let _ = address.send(Stop).await;
        ended.await.unwrap_or_else(|_| panicked())
    }

    /// Assigns the shard to its heir, and waits until the local replica has seen that or the plan is withdrawn.
    async fn hand_over(&self, heir: NodeId) -> ShardEnd {
        let assignment = AssignShard { shard: self.shard, owner: Some(heir), expected_epoch: self.epoch };
        let command = Command::AssignShard(assignment);
        let outcome = tokio::select! {
            outcome = self.group.propose(&command) => outcome,
            () = self.stop.cancelled() => return ShardEnd::Stopped,
        };
        match outcome {
            Ok(Outcome::Assigned { .. } | Outcome::Rejected(Rejection::EpochMoved(_))) => {
                self.stop.cancelled().await;
                ShardEnd::Fenced
            }
            // There is no leader at present, or the heir is gone, which the leader will soon notice.
            other => ShardEnd::Restart(format!("not handed to node {heir}: {other:?}")),
        }
    }

    async fn prepare(&self) -> Result<ShardParts, ShardEnd> {
        // 1. A replica that just restarted may lack what this same node committed before.
        let mut backoff = Backoff::growing(BACKOFF_MIN, BACKOFF_MAX);
        while let Err(error) = self.group.read_barrier().await {
            if error.next_move() != NextMove::Retry {
                return Err(ShardEnd::Halted(error.to_string()));
            }
            backoff.wait().await;
        }
        // 2. Offsets mean something in the topic that they were counted from, and in no other.
        self.recognise_log().await?;
        // 3. Read offsets, watermark and ids in one reading.
        let (terms, entry, seen) = self.read_replica()?;
        let committed_offset = entry.committed_offset;
        let state = off_thread(move || ShardState::restore(terms, &entry, &seen)).await?;
        let state = state.map_err(|damage| ShardEnd::Halted(damage.to_string()))?;
        let reader = self.open(committed_offset).await?;
        Ok(ShardParts {
            state,
            reader,
            group: Arc::clone(&self.group),
            log: Arc::clone(&self.log),
            clock: Arc::clone(&self.clock),
            log_clock: Arc::clone(&self.log_clock),
            meters: Arc::clone(&self.meters),
            arrival: self.arrival,
            checkpoint_interval: self.checkpoint_interval,
        })
    }

    async fn recognise_log(&self) -> Result<(), ShardEnd> {
        let mut backoff = Backoff::growing(BACKOFF_MIN, BACKOFF_MAX);
        let found = loop {
            match self.log.log_id().await {
                Ok(found) => break found,
                Err(error) if error.next_move() == NextMove::Retry => {
                    tracing::debug!(shard = self.shard.0, %error, "cannot tell yet which topic the log has");
                    backoff.wait().await;
                }
                Err(error) => return Err(ShardEnd::Halted(error.to_string())),
            }
        };
        let log = match recognise(self.group.read(|state| state.log_id()), found) {
            Recognised::Same => return Ok(()),
            Recognised::First(log) => log,
            Recognised::Other(error) => return Err(ShardEnd::Halted(error.to_string())),
        };
        match self.group.propose(&Command::IdentifyLog { log }).await {
            Ok(Outcome::Done | Outcome::AlreadyApplied) => Ok(()),
            // The group counts without a name, as its older builds do, until all of them are upgraded.
            Ok(Outcome::Rejected(Rejection::NeedsUpgrade { .. })) => Ok(()),
            other => Err(ShardEnd::Restart(format!("the log has no name in the group yet: {other:?}"))),
        }
    }

    fn read_replica(&self) -> Result<(ShardTerms, ShardEntry, Vec<Arc<SeenBlock>>), ShardEnd> {
        let (shard, node) = (self.shard, self.group.node());
        let read = self.group.read(|state| {
            let entry = state.shard(shard)?.clone();
            Some((state.settings()?, entry, state.seen_blocks(shard)))
        });
        let Some((settings, entry, seen)) = read else {
            return Err(ShardEnd::Restart("the group is not configured yet".into()));
        };
        if entry.epoch != self.epoch || entry.owner != Some(node) {
            return Err(ShardEnd::Fenced);
        }
        let partitioner = Partitioner::new(settings.groups);
        let terms = ShardTerms { shard, epoch: self.epoch, partitioner, event_time: settings.event_time };
        Ok((terms, entry, seen))
    }

    async fn open(&self, from: u64) -> Result<Box<dyn ShardReader>, ShardEnd> {
        let mut backoff = Backoff::growing(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let (log, shard) = (Arc::clone(&self.log), self.shard);
            match off_thread(move || log.open(shard, from)).await? {
                Ok(reader) => return Ok(reader),
                Err(error) if error.next_move() == NextMove::Retry => {
                    tracing::debug!(shard = shard.0, %error, "cannot open the partition yet");
                    backoff.wait().await;
                }
                Err(error) => return Err(ShardEnd::Halted(error.to_string())),
            }
        }
    }
}

/// Waits until the orders are no longer to count.
async fn until_ordered(orders: &mut watch::Receiver<Orders>) {
    if orders.wait_for(|orders| *orders != Orders::Count).await.is_err() {
        // The watch has ended, and the token will end this life too.
        std::future::pending::<()>().await;
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ShardEnd> {
    blocking::run(work).await.map_err(|error| ShardEnd::Halted(error.to_string()))
}
