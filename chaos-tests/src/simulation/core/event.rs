//! Everything that can happen in tier 0. A paused node gets its events when it runs again. The events of a life that
//! has ended are lost.

use std::sync::Arc;

use clicktally_proto::click_log::LogError;
use clicktally_proto::command::{Command, Outcome};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::group::ProposeError;
use clicktally_state::liveness::Heartbeat;

use super::owner::AttemptId;
use super::sink_work::WriterId;

/// One life of a node. A message to an earlier life is lost.
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
    /// A happening of the story, by its index.
    Happening(usize),
    Heal(Healing),
    Sink(WriterId),
    BackUp,
    /// An entry that was proposed in this term, and may or may not have reached a majority.
    Commit(Proposal),
}

/// What ends a fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Healing {
    Restart(NodeId),
    /// A pause ends by itself.
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
    /// Once, or periodically.
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
    /// At the node that the proposer believes to lead.
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
    End { proven_at_ms: Option<u64>, end: Result<u64, LogError> },
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

/// The purpose of a question how far the group has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexFor {
    Shard(ShardId, AttemptId),
    /// Monotonic milliseconds when the question was asked.
    Freshness {
        asked_at_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proposer {
    Checkpoint(ShardId, AttemptId),
    HandOver(ShardId, AttemptId),
    Placement,
    /// A report that a mutant sends before its records are published.
    Publisher,
    /// No node waits for the answer.
    Driver,
}

#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) id: u64,
    pub(super) from: Life,
    pub(super) proposer: Proposer,
    pub(super) command: Command,
    pub(super) bytes: Arc<[u8]>,
    /// The term in which its leader accepted it.
    pub(super) term: u64,
}
