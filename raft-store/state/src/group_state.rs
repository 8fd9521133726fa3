//! `GroupState`: what every replica of a group agrees on. It consists of parts that keep their fields to themselves.
//! [`crate::apply`] is the only writer.
//!
//! Promises: two replicas that applied the same entries encode to the same bytes (CT-3). Freezing copies pointers,
//! not cells, so a snapshot never delays applies. The parts that are small are in the head of a snapshot
//! ([`crate::head`]). The others have chunks of their own ([`crate::snapshot`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clicktally_proto::command::{CampaignTerms, GroupSettings, NodeRecord};
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

use crate::catalogue::{Campaign, Catalogue};
use crate::head::{Field, HeadError, HeadReader, HeadWriter, Tag};
use crate::limits::HeldState;
use crate::publication::Publication;
use crate::roster::Roster;
use crate::seen::SeenIds;
use crate::shards::{ShardEntry, Shards};
use crate::windows::{Window, Windows};

/// A group that is not named does not exist: a snapshot of any format names its group.
const GROUP: Field<GroupId> = Field { tag: Tag::Group, before: || GroupId(u16::MAX) };
const SETTINGS: Field<Option<GroupSettings>> = Field { tag: Tag::Settings, before: || None };
const LOG_ID: Field<Option<LogId>> = Field { tag: Tag::LogId, before: || None };

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    pub(crate) group: GroupId,
    pub(crate) settings: Option<GroupSettings>,
    pub(crate) log_id: Option<LogId>,
    pub(crate) roster: Roster,
    pub(crate) shards: Shards,
    pub(crate) publication: Publication,
    pub(crate) catalogue: Catalogue,
    pub(crate) seen: SeenIds,
    pub(crate) windows: Windows,
}

impl GroupState {
    pub fn new(group: GroupId) -> GroupState {
        GroupState {
            group,
            settings: None,
            log_id: None,
            roster: Roster::default(),
            shards: Shards::of_group(group),
            publication: Publication::default(),
            catalogue: Catalogue::default(),
            seen: SeenIds::default(),
            windows: Windows::default(),
        }
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn settings(&self) -> Option<GroupSettings> {
        self.settings
    }

    /// The raw topic whose offsets the shards count by; `None` until a shard's owner has named it.
    pub fn log_id(&self) -> Option<LogId> {
        self.log_id
    }

    pub(crate) fn event_time(&self) -> EventTimeRules {
        self.settings.map(|settings| settings.event_time).unwrap_or_default()
    }

    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        self.roster.nodes()
    }

    pub fn draining(&self) -> &BTreeSet<NodeId> {
        self.roster.draining()
    }

    /// The highest level of the commands that a node applies, as far as it has announced one.
    pub fn command_level(&self, node: NodeId) -> u16 {
        self.roster.command_level(node)
    }

    pub fn shards(&self) -> &BTreeMap<ShardId, ShardEntry> {
        self.shards.entries()
    }

    pub fn shard(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.shards.get(shard)
    }

    /// Cheap to clone: pointers to windows, by minute.
    pub fn windows(&self) -> &BTreeMap<Minute, Arc<Window>> {
        self.windows.minutes()
    }

    /// The blocks a new owner of the shard must know to go on deduplicating.
    pub fn seen_blocks(&self, shard: ShardId) -> Vec<Arc<SeenBlock>> {
        self.seen.of_shard(shard).cloned().collect()
    }

    pub fn campaign(&self, campaign: CampaignId) -> Option<&Arc<Campaign>> {
        self.catalogue.get(campaign)
    }

    pub fn campaigns(&self) -> &BTreeMap<CampaignId, Arc<Campaign>> {
        self.catalogue.campaigns()
    }

    /// Terms that were replaced before PostgreSQL had them, by revision.
    pub fn replaced_terms(&self) -> &BTreeMap<u64, Arc<CampaignTerms>> {
        self.catalogue.replaced()
    }

    /// PostgreSQL holds every campaign's terms up to this revision; 0 if nothing was reported yet.
    pub fn exported_terms(&self) -> u64 {
        self.catalogue.exported_through()
    }

    /// The lowest watermark of the group's shards. Never goes back.
    pub fn watermark_ms(&self) -> UnixMillis {
        self.shards.watermark_ms()
    }

    /// Log index of the newest entry that changed a fired window.
    pub fn newest_revision(&self) -> u64 {
        self.publication.newest_revision()
    }

    /// Everything up to here is in the `window_counts` topic.
    pub fn published_revision(&self) -> u64 {
        self.publication.published_revision()
    }

    /// Wall time before which every arrived click of this group is in the counts and in the spend.
    pub fn complete_to_ms(&self) -> UnixMillis {
        self.shards.complete_to_ms()
    }

    /// Windows that have revisions which the topic lacks. Pointers only, for use outside the lock.
    pub fn unpublished_windows(&self) -> Vec<(Minute, Arc<Window>)> {
        let published = self.published_revision();
        let is_new = |window: &Window| window.newest_revision().is_some_and(|newest| newest > published);
        self.windows()
            .iter()
            .filter(|(_, window)| is_new(window))
            .map(|(minute, window)| (*minute, Arc::clone(window)))
            .collect()
    }

    /// What the state is charged, as counted so far. The parts' checks compare it with a recount.
    pub fn held(&self) -> HeldState {
        HeldState { cells: self.windows.charge(), seen: self.seen.charge() }
    }

    /// Copies pointers under the caller's lock; encode the result elsewhere.
    pub fn freeze(&self) -> FrozenState {
        FrozenState(self.clone())
    }

    pub(crate) fn put_head(&self, head: &mut HeadWriter) -> Result<(), HeadError> {
        // Without `..`: a new part does not compile until this says where a snapshot has it.
        let GroupState { group, settings, log_id, roster, shards, publication, catalogue, seen: _, windows: _ } = self;
        head.put(&GROUP, group)?;
        head.put(&SETTINGS, settings)?;
        head.put(&LOG_ID, log_id)?;
        roster.put(head)?;
        shards.put(head)?;
        publication.put(head)?;
        catalogue.put(head)
    }

    /// A state whose campaigns, seen ids and windows are still empty.
    pub(crate) fn take_head(head: &mut HeadReader) -> Result<GroupState, HeadError> {
        Ok(GroupState {
            group: head.take(&GROUP)?,
            settings: head.take(&SETTINGS)?,
            log_id: head.take(&LOG_ID)?,
            roster: Roster::take(head)?,
            shards: Shards::take(head)?,
            publication: Publication::take(head)?,
            catalogue: Catalogue::take(head)?,
            seen: SeenIds::default(),
            windows: Windows::default(),
        })
    }
}

/// A state as it was at one moment. It shares its cells with the living one.
#[derive(Debug)]
pub struct FrozenState(GroupState);

impl FrozenState {
    pub fn state(&self) -> &GroupState {
        &self.0
    }
}
