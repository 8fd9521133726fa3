//! A model of consensus: one log of committed entries, at most one leader a term, and no promise about a proposal whose
//! answer is lost. Tier 1 runs the real openraft.
//!
//! The state here is that of a replica that is never behind and never dies. Every other replica must equal it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clicktally_proto::command::{COMMAND_LEVEL, Outcome};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::group_state::GroupState;

use crate::checks::ct3_replicas_equal::ReplicaDigest;
use crate::checks::ct21_state_is_sound;
use crate::simulation::random::{FNV_OFFSET, fnv1a};

pub(super) const GROUP: GroupId = GroupId(0);

#[derive(Debug)]
pub(super) struct Consensus {
    pub(super) members: BTreeSet<NodeId>,
    pub(super) term: u64,
    pub(super) leader: Option<NodeId>,
    /// The n-th is the entry at index n.
    entries: Vec<Arc<[u8]>>,
    pub(super) state: GroupState,
    /// Digests of the state at the indexes where replicas make snapshots.
    digests: BTreeMap<u64, u64>,
    digest_every: u64,
}

impl Consensus {
    pub(super) fn new(members: BTreeSet<NodeId>, digest_every: u64) -> Consensus {
        Consensus {
            members,
            term: 0,
            leader: None,
            entries: Vec::new(),
            state: GroupState::new(GROUP),
            digests: BTreeMap::new(),
            digest_every,
        }
    }

    pub(super) fn committed(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn commit(&mut self, entry: Arc<[u8]>) -> Outcome {
        let index = self.committed() + 1;
        let outcome = self.state.apply(index, &entry, COMMAND_LEVEL).expect("it is of this build");
        // Every other replica must equal this one (CT-3), so checking it checks all of them.
        ct21_state_is_sound::check(index, &self.state).unwrap_or_else(|violation| panic!("{violation}"));
        self.entries.push(entry);
        if index.is_multiple_of(self.digest_every) {
            self.digests.insert(index, digest(&encode(&self.state)));
        }
        outcome
    }

    /// 1-based.
    pub(super) fn entry(&self, index: u64) -> &[u8] {
        &self.entries[usize::try_from(index - 1).expect("an index of this run")]
    }

    /// The digest that a replica at this index must have; known at some indexes only.
    pub(super) fn digest_at(&self, index: u64) -> Option<ReplicaDigest> {
        let digest =
            if index == self.committed() { digest(&encode(&self.state)) } else { *self.digests.get(&index)? };
        Some(ReplicaDigest { node: 0, index, digest })
    }

    pub(super) fn is_majority(&self, nodes: usize) -> bool {
        nodes * 2 > self.members.len()
    }
}

/// The bytes of a snapshot.
pub(super) fn encode(state: &GroupState) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.freeze().write_to(&mut bytes).expect("a vector takes every byte");
    bytes
}

pub(super) fn digest(bytes: &[u8]) -> u64 {
    fnv1a(FNV_OFFSET, bytes)
}
