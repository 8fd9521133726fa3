//! openraft's state machine over [`Replica`]. It applies committed entries in memory and makes snapshots durable.
//!
//! *Reads*: committed entries. *Writes*: the replica that all components on this node read; snapshots. *Promises*:
//! each entry is applied exactly once and in order. An undecodable command becomes a committed rejection, the same on
//! every replica. At a command of a newer build the process stops. *On restart*: the state machine loads the newest
//! valid snapshot and then applies the log after it.
//!
//! Applying and encoding are computations. They run on blocking threads, never on the thread that answers heartbeats.

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

/// Entries applied in one blocking call. Readers get their turn between two calls.
const APPLY_BATCH_MAX: usize = 64;

/// What a replica logs as its operation when it stops at a command that it does not know.
pub const APPLYING_NEWER: &str = "applying a command of a newer build";

/// The state machine that openraft drives.
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

    /// The last applied entry; right after `open`, the last entry of the snapshot.
    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.replica.position().0
    }
}

/// Runs a computation on a blocking thread, so that it delays no heartbeat. A panic in it must not look like an I/O
/// error.
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

    /// Applies wait for this call, so the slow work is done before it: a received snapshot is already on disk and
    /// decoded.
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
                SnapshotData::MetaOnly => {
                    return Err(io::Error::other("this snapshot has no contents to install").into());
                }
            };
            // The snapshot must be durable before openraft purges the log behind it.
            let state = snapshots.adopt(received)?;
            let replaced = replica.replace(&meta, state);
            // Freeing millions of cells takes time, and the next apply must not wait for it.
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
            // Rebuild the damaged snapshot, because openraft stops a leader that has none.
            self.get_snapshot_builder().await.build_snapshot().await?;
            found = newest().await?;
        }
        Ok(found.map(|stored| Snapshot {
            meta: stored.meta.clone(),
            snapshot: SnapshotData::Stored(Box::new(stored), snapshots),
        }))
    }
}

/// Builds a durable snapshot of the current state while applies continue.
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
