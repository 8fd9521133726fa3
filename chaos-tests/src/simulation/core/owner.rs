//! One ownership of one shard on one node: what the real shell (`node/src/shard/{shard_life,shard_actor}.rs`) keeps between two steps.
//! The rules it goes by are the real ones; only the steps are the simulation's.

use clicktally_node::shard::commit_answer::CommitAttempts;
use clicktally_node::shard::shard_state::ShardState;
use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::OutRecord;
use clicktally_proto::command::Command;
use clicktally_proto::identity::ids::NodeId;

/// Names one attempt to count a shard: another one for every restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttemptId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) epoch: Epoch,
    pub(super) attempt: AttemptId,
    pub(super) heir: Option<NodeId>,
    pub(super) phase: Phase,
    pub(super) restarts: u32,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for the leader to say how far the group has committed.
    AskingBarrier,
    /// Waits for the replica to be there.
    AwaitingIndex,
    Counting(Box<Counting>),
    HandingOver,
    /// Starts again in a moment.
    Resting,
    Halted,
}

#[derive(Debug)]
pub(super) struct Counting {
    pub(super) state: ShardState,
    pub(super) checkpoint: CheckpointStep,
    pub(super) is_due: bool,
    pub(super) awaits_first: bool,
    /// Reads no more, and ends with the next commit.
    pub(super) is_finishing: bool,
    pub(super) is_opened: bool,
}

/// How far the checkpoint on its way has come.
#[derive(Debug)]
pub(super) enum CheckpointStep {
    None,
    AskingEnd,
    Publishing(Box<Cutting>),
    Proposing(Box<Cutting>),
}

#[derive(Debug)]
pub(super) struct Cutting {
    pub(super) command: Command,
    pub(super) out_records: Vec<OutRecord>,
    pub(super) attempts: CommitAttempts,
    pub(super) tries: u32,
}

impl Counting {
    pub(super) fn is_committing(&self) -> bool {
        !matches!(self.checkpoint, CheckpointStep::None)
    }
}
