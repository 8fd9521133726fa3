//! `GroupState`: what every replica of a group agrees on. Plain data behind ordered maps; [`crate::apply`] is the
//! only writer.
//!
//! Promises: two replicas that applied the same entries encode to the same bytes (CT-3). Freezing copies pointers,
//! not cells, so that a snapshot never holds the applies back. What it encodes to by itself is everything small; the
//! rest is in chunks of its own ([`crate::snapshot`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clicktally_proto::command::{COMMAND_LEVEL_MIN, GroupSettings, NodeRecord};
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use serde::{Deserialize, Serialize};

use crate::catalogue::Campaign;
use crate::limits::HeldState;
use crate::shards::ShardEntry;
use crate::windows::window::Window;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    pub(crate) group: GroupId,
    pub(crate) settings: Option<GroupSettings>,
    pub(crate) nodes: BTreeMap<NodeId, NodeRecord>,
    /// The nodes of [`GroupState::nodes`] that are being emptied. They are kept apart from the records, because each
    /// life of a node writes its record anew.
    pub(crate) draining: BTreeSet<NodeId>,
    /// The command level of each node of [`GroupState::nodes`] that has announced one.
    pub(crate) levels: BTreeMap<NodeId, u16>,
    pub(crate) workers: WorkerLeases,
    pub(crate) shards: BTreeMap<ShardId, ShardEntry>,
    #[serde(skip)]
    pub(crate) windows: BTreeMap<Minute, Arc<Window>>,
    /// Per shard and minute of event time, the ids counted, as packed by their owners.
    #[serde(skip)]
    pub(crate) seen: BTreeMap<ShardId, BTreeMap<Minute, Vec<Arc<SeenBlock>>>>,
    #[serde(skip)]
    pub(crate) campaigns: BTreeMap<CampaignId, Arc<Campaign>>,
    /// Derived from windows and seen ids.
    #[serde(skip)]
    pub(crate) held: HeldState,
    /// Min over the group's shards; never goes back.
    pub(crate) watermark_ms: UnixMillis,
    /// Log index of the newest entry that changed a fired window: the newest revision there is.
    pub(crate) newest_revision: u64,
    /// Everything up to here is in the `window_counts` topic.
    pub(crate) published_revision: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLeases {
    /// Where the search for a free id starts: ids go round, so that a released one rests as long as possible.
    pub(crate) next: u16,
    pub(crate) held: BTreeMap<u16, (NodeId, u64)>,
}

impl GroupState {
    pub fn new(group: GroupId) -> GroupState {
        GroupState {
            group,
            settings: None,
            nodes: BTreeMap::new(),
            draining: BTreeSet::new(),
            levels: BTreeMap::new(),
            workers: WorkerLeases::default(),
            shards: ShardId::of_group(group).map(|shard| (shard, ShardEntry::default())).collect(),
            windows: BTreeMap::new(),
            seen: BTreeMap::new(),
            campaigns: BTreeMap::new(),
            held: HeldState::default(),
            watermark_ms: 0,
            newest_revision: 0,
            published_revision: 0,
        }
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn settings(&self) -> Option<GroupSettings> {
        self.settings
    }

    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.nodes
    }

    pub fn draining(&self) -> &BTreeSet<NodeId> {
        &self.draining
    }

    /// Which commands a node applies, as far as it has said.
    pub fn command_level(&self, node: NodeId) -> u16 {
        self.levels.get(&node).copied().unwrap_or(COMMAND_LEVEL_MIN)
    }

    pub fn shards(&self) -> &BTreeMap<ShardId, ShardEntry> {
        &self.shards
    }

    pub fn shard(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.shards.get(&shard)
    }

    /// Cheap to clone: pointers to windows, by minute.
    pub fn windows(&self) -> &BTreeMap<Minute, Arc<Window>> {
        &self.windows
    }

    /// The blocks a new owner of the shard must know to go on deduplicating.
    pub fn seen_blocks(&self, shard: ShardId) -> Vec<Arc<SeenBlock>> {
        self.seen.get(&shard).map(|minutes| minutes.values().flatten().cloned().collect()).unwrap_or_default()
    }

    pub fn campaign(&self, campaign: CampaignId) -> Option<&Arc<Campaign>> {
        self.campaigns.get(&campaign)
    }

    pub fn campaigns(&self) -> &BTreeMap<CampaignId, Arc<Campaign>> {
        &self.campaigns
    }

    pub fn watermark_ms(&self) -> UnixMillis {
        self.watermark_ms
    }

    pub fn newest_revision(&self) -> u64 {
        self.newest_revision
    }

    pub fn published_revision(&self) -> u64 {
        self.published_revision
    }

    /// Wall time before which every arrived click of this group is in the counts and in the spend.
    pub fn complete_to_ms(&self) -> UnixMillis {
        self.shards.values().map(|shard| shard.complete_to_ms).min().unwrap_or(0)
    }

    /// Windows with anything to publish beyond what the topic has; pointers only, for use outside the lock.
    pub fn unpublished_windows(&self) -> Vec<(Minute, Arc<Window>)> {
        let is_new = |window: &Window| window.newest_revision().is_some_and(|newest| newest > self.published_revision);
        self.windows
            .iter()
            .filter(|(_, window)| is_new(window))
            .map(|(minute, window)| (*minute, Arc::clone(window)))
            .collect()
    }

    /// Copies pointers under the caller's lock; encode the result elsewhere.
    pub fn freeze(&self) -> FrozenState {
        FrozenState(self.clone())
    }
}

/// A state as it was at one moment, sharing its cells with the living one.
#[derive(Debug)]
pub struct FrozenState(GroupState);

impl FrozenState {
    pub fn state(&self) -> &GroupState {
        &self.0
    }
}
