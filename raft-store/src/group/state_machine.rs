//! openraft's state machine over [`Replica`]: applies committed entries in memory, makes snapshots durable.
//!
//! *Reads*: committed entries. *Writes*: the replica that everybody on this node reads; snapshots. *Promises*: an entry is
//! applied exactly once and in order; garbage is a committed rejection, the same on every replica; at a command of a newer build the
//! process stops. *On restart*: the newest valid snapshot, then the log behind it.
//!
//! Applying and encoding are computation: they run on blocking threads, never on the one that answers heartbeats.

use std::io;
use std::sync::Arc;

use clicktally_proto::clock::Clock;
use clicktally_proto::identity::shard_key::GroupId;
use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::blocking::{self, Unfinished};
use crate::fail_stop::fail_stop;
use crate::group::replica::Replica;
use crate::raft_metrics::METRICS;
use crate::snapshots::group_snapshots::GroupSnapshots;
use crate::snapshots::snapshot_data::{Snapshot, SnapshotData};
use crate::type_config::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
use clicktally_state::group_state::GroupState;
use clicktally_state::snapshot::SnapshotError;

/// Entries handed to one blocking call; between two of them readers get their turn.
const APPLY_BATCH_MAX: usize = 64;

/// What a replica was doing that stopped at a command it does not know, as it says in its log.
pub const APPLYING_NEWER: &str = "applying a command of a newer build";

/// What openraft drives.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    snapshots: GroupSnapshots,
    clock: Arc<dyn Clock>,
}

impl StateMachine {
    /// Starts from the newest valid snapshot, or empty.
    pub(crate) fn open(
        group: GroupId,
        snapshots: GroupSnapshots,
        clock: Arc<dyn Clock>,
        command_level: u16,
    ) -> Result<StateMachine, SnapshotError> {
        let (meta, state) =
            snapshots.newest_state()?.unwrap_or_else(|| (SnapshotMeta::default(), GroupState::new(group)));
        let replica = Replica::new(meta, state, clock.clone(), command_level);
        Ok(StateMachine { replica: Arc::new(replica), snapshots, clock })
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.clone()
    }

    /// The snapshot the state machine was opened from, or the last entry applied since.
    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.replica.position().0
    }
}

/// Runs a computation where it delays nobody's heartbeat. A panic in it must not pass for an I/O error.
async fn compute<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, io::Error> {
    match blocking::run(work).await {
        Ok(result) => Ok(result),
        Err(error @ Unfinished::Panicked(_)) => fail_stop(doing, error),
        Err(error) => Err(io::Error::other(error)),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.replica.position())
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.try_ready_chunks(APPLY_BATCH_MAX);
        while let Some(batch) = batches.try_next().await.map_err(|failed| failed.1)? {
            let (entries, responders): (Vec<Entry>, Vec<Option<ApplyResponder<TypeConfig>>>) =
                batch.into_iter().unzip();
            let replica = self.replica.clone();
            let outcomes = compute("applying committed entries", move || replica.apply(entries)).await?;
            let outcomes = outcomes.unwrap_or_else(|newer| fail_stop(APPLYING_NEWER, newer));
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { replica: self.replica.clone(), snapshots: self.snapshots.clone(), clock: self.clock.clone() }
    }

    /// Applies wait for this, so what takes long was done before: a received snapshot is on the disk and decoded.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let (replica, snapshots, meta) = (self.replica.clone(), self.snapshots.clone(), meta.clone());
        tracing::info!(index = meta.last_log_id.map(|last| last.index), "installing a snapshot");
        let install = move || -> Result<(), SnapshotError> {
            let received = match snapshot {
                SnapshotData::Received(received) => *received,
                SnapshotData::Stored(mut stored, _) => {
                    let mut writer = snapshots.begin()?;
                    io::copy(&mut stored.reader, &mut writer)?;
                    snapshots.check(writer)?
                }
                SnapshotData::MetaOnly => return Err(io::Error::other("there is nothing in this snapshot").into()),
            };
            // Durable before it counts: openraft purges the log behind it.
            let state = snapshots.adopt(received)?;
            let replaced = replica.replace(&meta, state);
            // Freeing millions of cells takes its time, and the next apply shall not wait for it.
            blocking::free_elsewhere(replaced);
            Ok(())
        };
        compute("installing a snapshot", install).await?.map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let newest = || async {
            let snapshots = snapshots.clone();
            compute("opening a snapshot", move || snapshots.newest()).await?.map_err(io::Error::other)
        };
        let mut found = newest().await?;
        if found.is_none() && snapshots.found_damage() && self.last_applied().is_some() {
            // A leader without any would be stopped by openraft for want of one: what rotted is made anew.
            self.get_snapshot_builder().await.build_snapshot().await?;
            found = newest().await?;
        }
        Ok(found.map(|stored| Snapshot {
            meta: stored.meta.clone(),
            snapshot: SnapshotData::Stored(Box::new(stored), snapshots),
        }))
    }
}

/// Turns the state as it is now into a durable snapshot, while applying goes on.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    snapshots: GroupSnapshots,
    clock: Arc<dyn Clock>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, frozen) = self.replica.freeze();
        let (snapshots, clock) = (self.snapshots.clone(), self.clock.clone());
        compute("building a snapshot", move || {
            let begun = clock.monotonic();
            let saved = snapshots.save(&meta, &frozen).map_err(io::Error::other)?;
            if let Some(bytes) = saved {
                let took = clock.monotonic().saturating_sub(begun);
                METRICS.snapshot_build_seconds.observe(took.as_secs_f64());
                METRICS.snapshot_built(frozen.state().group(), bytes);
                tracing::info!(index = meta.last_log_id.map(|last| last.index), bytes, "snapshot built");
            }
            Ok(Snapshot { meta, snapshot: SnapshotData::MetaOnly })
        })
        .await?
    }
}
