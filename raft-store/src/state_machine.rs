//! openraft's state machine over [`GroupState`]: applies committed entries in memory, makes snapshots durable.
//!
//! *Reads*: committed entries. *Writes*: the replica that everybody on this node reads; snapshots. *Promises*: an entry is
//! applied exactly once and in order; what cannot be decoded is a committed rejection, the same on every replica. *On restart*:
//! the newest valid snapshot, then the log behind it.
//!
//! Applying and encoding are computation: they run on blocking threads, never on the one that answers heartbeats.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use clicktally_proto::codec::CodecError;
use clicktally_proto::command::Outcome;
use clicktally_proto::fault;
use clicktally_proto::shard_key::GroupId;
use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::watch;

use crate::fail_stop::fail_stop;
use crate::group_snapshots::GroupSnapshots;
use crate::state::{FrozenState, GroupState};
use crate::type_config::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries handed to one blocking call; between two of them readers get their turn.
const APPLY_BATCH_MAX: usize = 64;

#[derive(Debug, Error)]
pub enum StateMachineError {
    #[error("snapshots cannot be read: {0}")]
    Snapshots(#[from] io::Error),
    #[error("the newest snapshot cannot be decoded: {0}")]
    Decode(#[from] CodecError),
}

/// The replica of one group on this node, shared by openraft (which writes it) and everybody else (who reads it).
pub(crate) struct Replica {
    applied_state: RwLock<AppliedState>,
    /// Index of the last applied entry; 0 also before the first.
    applied: watch::Sender<u64>,
}

struct AppliedState {
    state: GroupState,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl Replica {
    pub(crate) fn read<R>(&self, look: impl FnOnce(&GroupState) -> R) -> R {
        look(&self.applied_state.read().state)
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Applies entries and returns their outcomes. Readers see each entry whole.
    fn apply(&self, entries: Vec<Entry>) -> Vec<Outcome> {
        let outcomes = entries.into_iter().map(|entry| self.apply_one(entry)).collect();
        let applied = self.applied_state.read().last_applied.map_or(0, |last| last.index);
        self.applied.send_replace(applied);
        outcomes
    }

    fn apply_one(&self, entry: Entry) -> Outcome {
        fault::point("raft.before_apply");
        let mut applied = self.applied_state.write();
        let outcome = match entry.payload {
            EntryPayload::Blank => Outcome::Done,
            EntryPayload::Normal(command) => applied.state.apply(entry.log_id.index, &command.0),
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcome::Done
            }
        };
        applied.last_applied = Some(entry.log_id);
        drop(applied);
        fault::point("raft.after_apply");
        outcome
    }

    fn freeze(&self) -> (SnapshotMeta, FrozenState) {
        let applied = self.applied_state.read();
        let meta = SnapshotMeta { last_log_id: applied.last_applied, last_membership: applied.membership.clone() };
        (meta, applied.state.freeze())
    }

    fn replace(&self, meta: &SnapshotMeta, state: GroupState) {
        {
            let mut applied = self.applied_state.write();
            applied.state = state;
            applied.last_applied = meta.last_log_id;
            applied.membership = meta.last_membership.clone();
        }
        self.applied.send_replace(meta.last_log_id.map_or(0, |last| last.index));
    }
}

/// What openraft drives.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    snapshots: GroupSnapshots,
}

impl StateMachine {
    /// Starts from the newest valid snapshot, or empty.
    pub(crate) fn open(group: GroupId, snapshots: GroupSnapshots) -> Result<StateMachine, StateMachineError> {
        let mut applied =
            AppliedState { state: GroupState::new(group), last_applied: None, membership: StoredMembership::default() };
        if let Some(Snapshot { meta, snapshot }) = snapshots.newest()? {
            applied.state = GroupState::decode(&snapshot)?;
            applied.last_applied = meta.last_log_id;
            applied.membership = meta.last_membership;
        }
        let index = applied.last_applied.map_or(0, |last| last.index);
        let replica = Replica { applied_state: RwLock::new(applied), applied: watch::Sender::new(index) };
        Ok(StateMachine { replica: Arc::new(replica), snapshots })
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.clone()
    }

    /// Index of the snapshot the state machine was opened from, or of the last entry applied since.
    pub(crate) fn applied_index(&self) -> Option<u64> {
        self.replica.applied_state.read().last_applied.map(|last| last.index)
    }
}

/// Runs a computation where it delays nobody's heartbeat. A panic in it must not pass for an I/O error.
async fn compute<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, io::Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => fail_stop(doing, error),
        Err(error) => Err(io::Error::other(error)),
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.replica.applied_state.read();
        Ok((applied.last_applied, applied.membership.clone()))
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
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { replica: self.replica.clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (replica, snapshots, meta) = (self.replica.clone(), self.snapshots.clone(), meta.clone());
        let index = meta.last_log_id.map(|last| last.index);
        tracing::info!(index, bytes = snapshot.len(), "installing a snapshot");
        compute("installing a snapshot", move || {
            // Decoded before it is saved: what this build cannot read must not become its newest snapshot.
            let state = GroupState::decode(&snapshot).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            snapshots.save(&meta, &snapshot)?;
            replica.replace(&meta, state);
            Ok(())
        })
        .await?
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        compute("reading a snapshot", move || snapshots.newest()).await?
    }
}

/// Turns the state as it is now into a durable snapshot, while applying goes on.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    snapshots: GroupSnapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, frozen) = self.replica.freeze();
        let snapshots = self.snapshots.clone();
        compute("building a snapshot", move || {
            let state = Bytes::from(frozen.encode().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?);
            snapshots.save(&meta, &state)?;
            tracing::info!(index = meta.last_log_id.map(|last| last.index), bytes = state.len(), "snapshot built");
            Ok(Snapshot { meta, snapshot: state })
        })
        .await?
    }
}
