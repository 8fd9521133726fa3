//! Replicated commands and their outcomes: everything that a group's state machine can be asked to do.
//!
//! Variants are appended, never reordered or reused, because new builds replay old logs. A command is not proposed
//! while a member runs an older build that does not know it ([`Command::level`]; docs/decisions/017-mixed-versions.md).

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Epoch};
use crate::event_time::{EventTimeRules, UnixMillis};
use crate::identity::ids::{AdvertiserId, CampaignId, NodeId};
use crate::identity::log_id::LogId;
use crate::identity::shard_key::ShardId;
use crate::money::{Currency, Micros};

/// This build applies the commands of this level and below. Increment it when adding commands, and give each new
/// command its level in [`Command::level`].
pub const COMMAND_LEVEL: u16 = 3;
/// The level that every build applies, and that is assumed of a node which has announced none.
pub const COMMAND_LEVEL_MIN: u16 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sets what every replica must share. The first settings stay. Later ones that differ are rejected, unless they
    /// only raise the state's memory budget.
    Configure(GroupSettings),
    /// A node registers, or registers again: its addresses and roles are replaced.
    RegisterNode(NodeRecord),
    /// Forgets a node and takes its shards away.
    RemoveNode(NodeId),
    /// Gives a shard to a node, or takes it from its node, under a new epoch.
    AssignShard(AssignShard),
    Checkpoint(Checkpoint),
    /// Creates or replaces a campaign's terms and budget.
    SetCampaign(CampaignTerms),
    /// Reports that every row up to this revision is in the `window_counts` topic.
    SinkProgress {
        published_revision: u64,
    },
    /// Leases a Snowflake worker id to one incarnation of a node.
    LeaseWorker {
        node: NodeId,
        incarnation: u64,
    },
    /// Asks a shard's owner to hand it over in order.
    PlanMove(PlanMove),
    /// A draining node keeps its shards until other nodes take them, and gets no more.
    SetDraining {
        node: NodeId,
        is_draining: bool,
    },
    /// A registered node announces which commands its build applies. The latest announcement counts, so a node may also
    /// be downgraded.
    AnnounceLevel {
        node: NodeId,
        level: u16,
    },
    /// Reports that PostgreSQL holds every campaign's terms up to this revision. From the first report on, the state
    /// keeps replaced terms until they are reported, so that no price that was in force is missing from an invoice.
    TermsExported {
        through_revision: u64,
    },
    /// Names the raw topic whose offsets the group's shards count by. The first name stays, and another one is
    /// rejected: a topic that was deleted and made again has other records under the same offsets.
    IdentifyLog {
        log: LogId,
    },
}

impl Command {
    /// Builds of this level and above apply the command.
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
            Command::TermsExported { .. } | Command::IdentifyLog { .. } => 3,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    pub groups: u16,
    pub event_time: EventTimeRules,
    /// What one group's cells and seen ids may take in each replica's memory. Shards wait while it is reached. It may
    /// be raised later, never lowered.
    pub state_bytes_max: u64,
}

/// Enough for some ten million cells with their seen ids.
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
    /// The epoch that the proposer saw. If the shard has another epoch, the assignment is rejected, so two placements
    /// cannot cross.
    pub expected_epoch: Epoch,
}

/// The owner continues to count until it has committed what it has read. Then it assigns the shard to its heir itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMove {
    pub shard: ShardId,
    /// `None` takes the plan back.
    pub heir: Option<NodeId>,
    /// As in [`AssignShard`].
    pub expected_epoch: Epoch,
}

/// What an advertiser agreed to. Only the revision, which the state machine sets, decides which of two is newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignTerms {
    pub campaign_id: CampaignId,
    pub advertiser_id: AdvertiserId,
    pub name: String,
    pub currency: Currency,
    pub cost_per_click_micros: Micros,
    pub budget_micros: Micros,
    /// The published overage tolerance: what staleness may cost before budget checks answer pause.
    pub tolerance_micros: Micros,
    /// Wall time of the node that accepted the change. Clicks from here on are billed by these terms.
    pub effective_from_ms: UnixMillis,
    /// If present, the only revision that these terms may replace; another one is a conflict (`If-Match`).
    pub expected_revision: Option<u64>,
}

/// The answer of apply, the same on every replica. A rejection changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The shard has another owner now. The proposer must stop counting it.
    Fenced {
        current: Epoch,
    },
    /// The same checkpoint was applied before: this is a retry.
    AlreadyApplied,
    /// The proposer's offsets do not continue the committed ones. It must start again from `expected`.
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
    #[error("the group has other settings already: give every node the same [cluster] section")]
    SettingsDiffer,
    #[error("shard {} does not belong to this group", .0.0)]
    ForeignShard(ShardId),
    #[error("node {0} is not registered")]
    UnknownNode(NodeId),
    #[error("the shard's epoch moved on to {}", .0.0)]
    EpochMoved(Epoch),
    #[error("the offsets go backwards")]
    OffsetsBackwards,
    #[error("the click outcomes do not add up")]
    NotConserved,
    #[error("the checkpoint has a cell of a final window")]
    FinalWindow,
    #[error("the campaign changed meanwhile; its revision is {0}")]
    RevisionMoved(u64),
    #[error("amounts must not be negative")]
    NegativeAmount,
    #[error("campaign id must not be 0")]
    ZeroId,
    #[error("campaign {0} belongs to another group")]
    ForeignCampaign(CampaignId),
    #[error("all Snowflake worker ids are leased: remove nodes that are gone")]
    NoWorkerLeft,
    #[error("limit reached: {0}")]
    Limit(String),
    /// Propose it again: windows become final and leave, which makes room.
    #[error("the group's state would take {needed_bytes} bytes, above its present limit of {limit_bytes}")]
    StateFull { needed_bytes: u64, limit_bytes: u64 },
    /// The command was not proposed.
    #[error(
        "node {node} does not apply this command yet: start it if it never ran, upgrade it if it runs an older build, or remove it \
         from the cluster"
    )]
    NeedsUpgrade { node: NodeId },
    #[error("the group counts the raw topic with the id {0}")]
    OtherLog(LogId),
}
