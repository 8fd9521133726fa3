//! Everything a handler may use. The node provides the parts.

use std::sync::Arc;
use std::time::Duration;

use clicktally_database::Database;
use clicktally_proto::click_log::ClickLog;
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use clicktally_raft_store::group::Group;

use crate::access::capture_slots::CaptureSlots;
use crate::access::source::Sources;
use crate::ports::group_rules::GroupRules;
use crate::ports::id_minter::IdMinter;
use crate::ports::{BudgetLane, HaltedParts, OwnShards};

/// Those roles of this node that have routes of their own. Every node answers the other routes: health, metrics,
/// members, campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Takes clicks.
    pub capture: bool,
    /// Answers queries and budget checks.
    pub serve: bool,
}

pub struct ApiState {
    pub node: NodeId,
    pub roles: Roles,
    /// The local replicas; the index is the group id, and every group has one.
    pub groups: Vec<Arc<Group>>,
    pub partitioner: Partitioner,
    pub group_rules: GroupRules,
    pub clock: Arc<dyn Clock>,
    pub log: Arc<dyn ClickLog>,
    /// Armed once a worker id is leased. Until then clicks without an `event_id` are refused.
    pub minter: IdMinter,
    pub budget: Arc<dyn BudgetLane>,
    pub shards: Arc<dyn OwnShards>,
    pub halted: Arc<dyn HaltedParts>,
    /// Connects on first use. Without it, only minutes that the replicas hold can be queried.
    pub postgres: Option<Database>,
    pub sources: Sources,
    pub capture_slots: CaptureSlots,
}

/// How long the log may take to say where it ends.
const LOG_DEADLINE: Duration = Duration::from_secs(1);

impl ApiState {
    /// The end of a shard's log as it answers now.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    pub(crate) async fn log_end(&self, shard: ShardId) -> Result<u64, String> {
        match tokio::time::timeout(LOG_DEADLINE, self.log.end_offset(shard)).await {
            Ok(end) => end.map_err(|error| error.to_string()),
            Err(_) => Err("the log did not answer in time".to_owned()),
        }
    }

    /// The local replica that owns a campaign.
    pub fn group_of(&self, campaign: CampaignId) -> Option<&Arc<Group>> {
        self.groups.get(usize::from(self.partitioner.group(campaign).0))
    }
}
