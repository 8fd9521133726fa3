//! One ownership of one shard on one node: what the real shell (`node/src/shard/{shard_life,shard_actor}.rs`) keeps
//! between two steps. The rules are the real ones; only the steps belong to the simulation.

use clicktally_node::shard::commit_answer::CommitAttempts;
use clicktally_node::shard::shard_state::ShardState;
use clicktally_proto::checkpoint::Epoch;
use clicktally_proto::click_log::OutRecord;
use clicktally_proto::command::Command;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::log_id::LogId;

/// Names one attempt to count a shard. Every restore begins a new attempt.
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
    /// Waits for the leader's answer how far the group has committed.
    AskingBarrier,
    /// Waits until the replica has applied that much.
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
    /// The raw topic that its reader was opened on.
    pub(super) log_id: LogId,
    pub(super) checkpoint: CheckpointStep,
    pub(super) is_due: bool,
    pub(super) awaits_first: bool,
    /// Reads no more. It ends with the next commit.
    pub(super) is_finishing: bool,
    pub(super) is_opened: bool,
}

/// The progress of the checkpoint in flight.
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
