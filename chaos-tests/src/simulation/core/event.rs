//! Everything that can happen in tier 0. Who is paused gets its events when it runs again; who has died meanwhile does not get them.

use std::sync::Arc;

use clicktally_proto::click_log::LogError;
use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::group::ProposeError;
use clicktally_raft_store::heartbeats::Heartbeat;

use super::owner::AttemptId;
use super::sink_work::WriterId;

/// One life of a node: a message to an earlier one is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
}

#[derive(Debug)]
pub(super) enum Event {
    /// To one life of one node.
    To(Life, NodeEvent),
    Traffic,
    Election,
    Fault,
    /// Of a kind added later: which of the story's.
    Happening(usize),
    Heal(Healing),
    Sink(WriterId),
    BackUp,
    /// An entry that reached a majority, or did not, in this term.
    Commit(Proposal),
}

/// What puts an end to a fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Healing {
    Restart(NodeId),
    /// Of a pause, which ends by itself.
    Nothing,
    Link(NodeId, NodeId),
    Partition(ShardId),
    LogForNode(NodeId),
    Sink,
    Storm,
    ElectionPause,
    SecondWriter,
}

#[derive(Debug)]
pub(super) enum NodeEvent {
    Beat,
    Heard(Heartbeat),
    /// Once, or again and again.
    CatchUp {
        is_periodic: bool,
    },
    Place,
    PublishNews,
    News(Publication),
    Freshen,
    AskBudget,
    Drain,
    CheckpointDue,
    Shard(ShardId, AttemptId, ShardEvent),
    /// At the node that the proposer takes for the leader.
    Proposed(Proposal),
    Answered(u64, Result<Outcome, ProposeError>),
    AskedIndex(Life, IndexFor),
    Index(IndexFor, u64),
    Installed(u64, Arc<[u8]>),
}

#[derive(Debug)]
pub(super) enum ShardEvent {
    Begin,
    AskBarrier,
    End { proven_at_ms: u64, end: Result<u64, LogError> },
    Publish,
    Propose,
    LastCommitIsLate,
}

/// Records of fired windows on their way to the topic.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) records: Vec<clicktally_proto::click_log::OutRecord>,
    pub(super) newest_revision: u64,
}

/// Who asks how far the group has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexFor {
    Shard(ShardId, AttemptId),
    /// Monotonic milliseconds at the question.
    Freshness {
        asked_at_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proposer {
    Checkpoint(ShardId, AttemptId),
    HandOver(ShardId, AttemptId),
    Placement,
    /// Before the records are out, if somebody makes that mistake.
    Publisher,
    Nobody,
}

#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) id: u64,
    pub(super) from: Life,
    pub(super) proposer: Proposer,
    pub(super) command: Command,
    pub(super) bytes: Arc<[u8]>,
    /// The term in which its leader took it.
    pub(super) term: u64,
}
