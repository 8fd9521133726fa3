//! Replicated commands and their outcomes: everything a group's state machine can be asked to do.
//!
//! Additive: variants are appended, never reordered or reused, because old logs are replayed by new builds. What an older build does not
//! know is not proposed as long as one is a member ([`Command::level`]; docs/decisions/017-mixed-versions.md).

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Epoch};
use crate::event_time::{EventTimeRules, UnixMillis};
use crate::identity::ids::{AdvertiserId, CampaignId, NodeId};
use crate::identity::shard_key::ShardId;
use crate::money::{Currency, Micros};

/// This build applies the commands of this level and below. Whoever appends some raises it, and gives them theirs in [`Command::level`].
pub const COMMAND_LEVEL: u16 = 2;
/// What every build applies, and what is assumed of a node that has not said more.
pub const COMMAND_LEVEL_MIN: u16 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Settings every replica must share. The first one wins; a different second one is rejected, unless all it does is to raise
    /// the state's budget.
    Configure(GroupSettings),
    /// A node announces itself (again): address and roles are replaced.
    RegisterNode(NodeRecord),
    /// Forgets a node and takes its shards away.
    RemoveNode(NodeId),
    /// Gives a shard to a node (or to nobody), under a new epoch.
    AssignShard(AssignShard),
    Checkpoint(Checkpoint),
    /// Creates or replaces a campaign's terms and budget.
    SetCampaign(CampaignTerms),
    /// Everything up to this revision is in the `window_counts` topic.
    SinkProgress {
        published_revision: u64,
    },
    /// Leases a Snowflake worker id to one life of one node.
    LeaseWorker {
        node: NodeId,
        incarnation: u64,
    },
    /// Asks a shard's owner to hand it over in order.
    PlanMove(PlanMove),
    /// A draining node keeps what it has until somebody takes it, and is given nothing more.
    SetDraining {
        node: NodeId,
        is_draining: bool,
    },
    /// A registered node says which commands its build applies: the latest word counts, so that a node may also be set back.
    AnnounceLevel {
        node: NodeId,
        level: u16,
    },
}

impl Command {
    /// A build of this level and above applies it.
    pub fn level(&self) -> u16 {
        match self {
            Command::Configure(_)
            | Command::RegisterNode(_)
            | Command::RemoveNode(_)
            | Command::AssignShard(_)
            | Command::Checkpoint(_)
            | Command::SetCampaign(_)
            | Command::SinkProgress { .. }
            | Command::LeaseWorker { .. }
            | Command::AnnounceLevel { .. } => COMMAND_LEVEL_MIN,
            Command::PlanMove(_) | Command::SetDraining { .. } => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    pub groups: u16,
    pub event_time: EventTimeRules,
    /// What one group's cells and seen ids may take in each replica's memory; where it is reached, shards wait. May be raised
    /// later, never lowered.
    pub state_bytes_max: u64,
}

/// Some ten million cells with their seen ids.
pub const STATE_BYTES_MAX_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;

impl GroupSettings {
    /// With the default budget.
    pub fn new(groups: u16, event_time: EventTimeRules) -> GroupSettings {
        GroupSettings { groups, event_time, state_bytes_max: STATE_BYTES_MAX_DEFAULT }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub node: NodeId,
    /// `host:port` of the public HTTP interface.
    pub http_address: String,
    /// `host:port` of the peer interface.
    pub peer_address: String,
    pub can_aggregate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignShard {
    pub shard: ShardId,
    pub owner: Option<NodeId>,
    /// The epoch the proposer saw; if it has moved on, the assignment is rejected, so two placements cannot cross.
    pub expected_epoch: Epoch,
}

/// The owner goes on counting until it has committed what it has read; then it assigns the shard to its heir itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMove {
    pub shard: ShardId,
    /// `None` takes the plan back.
    pub heir: Option<NodeId>,
    /// As in [`AssignShard`].
    pub expected_epoch: Epoch,
}

/// What an advertiser agreed to. `revision` and nothing else decides which of two is newer; the state machine sets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignTerms {
    pub campaign_id: CampaignId,
    pub advertiser_id: AdvertiserId,
    pub name: String,
    pub currency: Currency,
    pub cost_per_click_micros: Micros,
    pub budget_micros: Micros,
    /// The published overage tolerance: what staleness may cost before the budget lane pauses.
    pub tolerance_micros: Micros,
    /// Wall time of the node that accepted the change; clicks from here on are billed by these terms.
    pub effective_from_ms: UnixMillis,
    /// If present, the revision this replaces; anything else is a conflict (`If-Match`).
    pub expected_revision: Option<u64>,
}

/// The answer of apply. Every command gets one, on every replica the same; a rejection changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The shard has another owner now: the proposer must stop counting it.
    Fenced {
        current: Epoch,
    },
    /// A retry of what is in already.
    AlreadyApplied,
    /// The proposer's offsets do not continue the committed ones: it must start again from `expected`.
    OffsetGap {
        expected: u64,
    },
    Assigned {
        epoch: Epoch,
    },
    WorkerLeased {
        worker: u16,
    },
    CampaignSet {
        revision: u64,
    },
    Rejected(Rejection),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("undecodable command: {0}")]
    Undecodable(String),
    #[error("the group is configured already, with other settings; give every node the same [cluster] section")]
    SettingsDiffer,
    #[error("shard {} does not belong to this group", .0.0)]
    ForeignShard(ShardId),
    #[error("node {0} is not registered")]
    UnknownNode(NodeId),
    #[error("the shard's epoch moved on to {}", .0.0)]
    EpochMoved(Epoch),
    #[error("offsets run backwards")]
    OffsetsBackwards,
    #[error("the click outcomes do not add up")]
    NotConserved,
    #[error("a cell of a final window")]
    FinalWindow,
    #[error("the campaign changed meanwhile; its revision is {0}")]
    RevisionMoved(u64),
    #[error("amounts must not be negative")]
    NegativeAmount,
    #[error("campaign id must not be 0")]
    ZeroId,
    #[error("campaign {0} belongs to another group")]
    ForeignCampaign(CampaignId),
    #[error("all Snowflake worker ids are leased; remove nodes that are gone")]
    NoWorkerLeft,
    #[error("limit reached: {0}")]
    Limit(String),
    /// To be proposed again: room comes when windows become final and leave.
    #[error("the group's state would take {needed_bytes} bytes, and may take {limit_bytes} at the moment")]
    StateFull { needed_bytes: u64, limit_bytes: u64 },
    /// Not even proposed.
    #[error(
        "node {node} does not apply this yet: start it if it never was, upgrade it if it runs an older build, or remove it from the \
         cluster"
    )]
    NeedsUpgrade { node: NodeId },
}
