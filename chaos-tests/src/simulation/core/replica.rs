//! One node's replica of the group, and the snapshots that survive the node, on a disk that may tear or rot.

use std::sync::Arc;

use clicktally_proto::command::COMMAND_LEVEL;
use clicktally_proto::identity::ids::NodeId;
use clicktally_state::group_state::GroupState;

use super::consensus::{Consensus, GROUP, digest, encode};
use crate::checks::ct3_replicas_equal::ReplicaDigest;

/// As many as the real disk keeps.
const SNAPSHOTS_KEPT: usize = 2;

#[derive(Debug, Clone)]
struct StoredSnapshot {
    index: u64,
    bytes: Vec<u8>,
}

/// Survives crashes.
#[derive(Debug, Default)]
pub(super) struct ReplicaDisk {
    /// The newest last.
    snapshots: Vec<StoredSnapshot>,
}

impl ReplicaDisk {
    pub(super) fn store(&mut self, index: u64, bytes: Vec<u8>) {
        self.snapshots.push(StoredSnapshot { index, bytes });
        if self.snapshots.len() > SNAPSHOTS_KEPT {
            self.snapshots.remove(0);
        }
    }

    /// Ruins the newest snapshot: truncates it, or flips one bit. `at` is taken modulo its length.
    pub(super) fn ruin(&mut self, at: u64, is_torn: bool) -> bool {
        let Some(newest) = self.snapshots.last_mut() else { return false };
        let at = usize::try_from(at % newest.bytes.len() as u64).unwrap_or(0);
        if is_torn {
            newest.bytes.truncate(at);
        } else {
            newest.bytes[at] ^= 1 << (at % 8);
        }
        true
    }
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) state: GroupState,
    pub(super) applied: u64,
}

impl Replica {
    /// Restores the newest intact snapshot and sets damaged ones aside. Returns the number of damaged ones.
    pub(super) fn restore(disk: &mut ReplicaDisk) -> (Replica, usize) {
        let mut damaged = 0;
        while let Some(newest) = disk.snapshots.last() {
            if let Ok(state) = GroupState::read_from(GROUP, &mut newest.bytes.as_slice(), COMMAND_LEVEL) {
                return (Replica { state, applied: newest.index }, damaged);
            }
            damaged += 1;
            disk.snapshots.pop();
        }
        (Replica { state: GroupState::new(GROUP), applied: 0 }, damaged)
    }

    /// Applies the next entry. At every multiple of `snapshot_every` it writes a snapshot to the disk and returns the
    /// snapshot's digest.
    pub(super) fn apply_next(
        &mut self,
        node: NodeId,
        consensus: &Consensus,
        disk: &mut ReplicaDisk,
        snapshot_every: u64,
    ) -> Option<ReplicaDigest> {
        self.applied += 1;
        let applied = self.state.apply(self.applied, consensus.entry(self.applied), COMMAND_LEVEL);
        applied.expect("it is of this build");
        if !self.applied.is_multiple_of(snapshot_every) {
            return None;
        }
        let bytes = encode(&self.state);
        let found = ReplicaDigest { node, index: self.applied, digest: digest(&bytes) };
        disk.store(self.applied, bytes);
        Some(found)
    }

    /// Installs a peer's state, as received over the network.
    pub(super) fn install(&mut self, index: u64, bytes: Arc<[u8]>, disk: &mut ReplicaDisk) {
        if index <= self.applied {
            return;
        }
        let read = GroupState::read_from(GROUP, &mut &bytes[..], COMMAND_LEVEL);
        let state = read.expect("a peer's snapshot arrives whole or not at all");
        *self = Replica { state, applied: index };
        disk.store(index, bytes.to_vec());
    }

    pub(super) fn digest(&self, node: NodeId) -> ReplicaDigest {
        ReplicaDigest { node, index: self.applied, digest: digest(&encode(&self.state)) }
    }
}
