//! One Raft group, as the rest of a node sees it: propose, read the local replica, know how fresh it is, know who leads.

use std::time::Duration;

use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::GroupId;
use thiserror::Error;
use tokio::sync::watch;

use crate::heartbeats::{Heartbeat, HeartbeatView};
use crate::state::GroupState;

/// What to do when a proposal did not come back with an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader, a lease in doubt, or no answer in time. It may or may not have been applied: ask again, the fences of the
    /// commands make that safe.
    #[error("proposal undecided, try again: {0}")]
    Retry(String),
    /// This node cannot take part any more.
    #[error("this node's replica has stopped: {0}")]
    Halt(String),
}

/// The local replica of one group.
#[derive(Debug)]
pub struct Group {}

impl Group {
    pub fn id(&self) -> GroupId {
        unreachable!("skeleton")
    }

    /// This process's own node id.
    pub fn node(&self) -> NodeId {
        unreachable!("skeleton")
    }

    /// Commits a command through the group's leader, wherever that is, and returns what apply said.
    pub async fn propose(&self, _command: &Command) -> Result<Outcome, ProposeError> {
        unreachable!("skeleton")
    }

    /// Reads the local replica under a lock held for the closure only: copy out what you need, do not compute in there.
    pub fn read<R>(&self, _look: impl FnOnce(&GroupState) -> R) -> R {
        unreachable!("skeleton")
    }

    /// Changes whenever the replica has applied more; the value is the last applied log index.
    pub fn applied(&self) -> watch::Receiver<u64> {
        unreachable!("skeleton")
    }

    /// How long ago, in monotonic time, this replica was proven to hold everything committed. `None`: never yet.
    pub fn staleness(&self) -> Option<Duration> {
        unreachable!("skeleton")
    }

    /// Waits until the local replica holds everything committed before the call (a linearizable read barrier).
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        unreachable!("skeleton")
    }

    pub fn leader(&self) -> Option<NodeId> {
        unreachable!("skeleton")
    }

    pub fn is_leader(&self) -> bool {
        unreachable!("skeleton")
    }

    /// Tells the leader that this node lives, and what it carries.
    pub async fn send_heartbeat(&self, _heartbeat: Heartbeat) -> Result<(), ProposeError> {
        unreachable!("skeleton")
    }

    /// On the leader: when each node was last heard, in monotonic time of this process.
    pub fn heartbeats(&self) -> HeartbeatView {
        unreachable!("skeleton")
    }
}
