//! The shards of a group: which node counts each, how far its clicks are counted, and the watermark of them all.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::checkpoint::{Epoch, OutcomeCounts};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use serde::{Deserialize, Serialize};

use crate::check::{BrokenInvariant, require};
use crate::head::{Field, HeadError, HeadReader, HeadWriter, Tag};

const SHARDS: Field<BTreeMap<ShardId, ShardEntry>> = Field { tag: Tag::Shards, before: BTreeMap::new };
const WATERMARK_MS: Field<UnixMillis> = Field { tag: Tag::WatermarkMs, before: u64::default };

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    pub owner: Option<NodeId>,
    /// The node that the owner is asked to hand the shard to, once it has committed what it has read.
    pub heir: Option<NodeId>,
    /// The present owner was the heir of the one before.
    pub was_heir: bool,
    /// Grows with each change of owner. Proposals of an older epoch are fenced.
    pub epoch: Epoch,
    /// The next offset to read: everything below is counted.
    pub committed_offset: u64,
    /// The offsets of the newest checkpoint that read anything, to recognise its retry.
    pub last_range: Option<(u64, u64)>,
    pub watermark_ms: UnixMillis,
    /// Everything that arrived before this is counted.
    pub complete_to_ms: UnixMillis,
    pub outcomes: OutcomeCounts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    entries: BTreeMap<ShardId, ShardEntry>,
    /// The lowest watermark of the shards. It never goes back, even if a rule changes what a shard reports.
    watermark_ms: UnixMillis,
}

impl Shards {
    pub(crate) fn of_group(group: GroupId) -> Shards {
        let entries = ShardId::of_group(group).map(|shard| (shard, ShardEntry::default())).collect();
        Shards { entries, watermark_ms: 0 }
    }

    pub fn entries(&self) -> &BTreeMap<ShardId, ShardEntry> {
        &self.entries
    }

    pub fn get(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.entries.get(&shard)
    }

    pub fn watermark_ms(&self) -> UnixMillis {
        self.watermark_ms
    }

    /// Wall time before which every arrived click of this group is in the counts and in the spend.
    pub fn complete_to_ms(&self) -> UnixMillis {
        self.entries.values().map(|entry| entry.complete_to_ms).min().unwrap_or(0)
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut ShardEntry> {
        self.entries.get_mut(&shard)
    }

    /// Takes every shard from a node that has been removed, under a new epoch, and cancels the moves to it.
    pub(crate) fn disown(&mut self, node: NodeId) {
        for entry in self.entries.values_mut() {
            if entry.heir == Some(node) {
                entry.heir = None;
            }
            if entry.owner == Some(node) {
                entry.owner = None;
                entry.heir = None;
                entry.epoch = Epoch(entry.epoch.0 + 1);
            }
        }
    }

    /// Sets the group's watermark to the lowest of the shards'. A shard that was never read, or has no owner, holds
    /// it where it is.
    pub(crate) fn advance_watermark(&mut self) {
        let lowest = self.lowest_watermark_ms();
        self.watermark_ms = self.watermark_ms.max(lowest);
        if is_broken(Mutant::WatermarkGoesBack) {
            self.watermark_ms = lowest;
        }
    }

    fn lowest_watermark_ms(&self) -> UnixMillis {
        self.entries.values().map(|entry| entry.watermark_ms).min().unwrap_or(0)
    }

    pub(crate) fn check(&self, group: GroupId) -> Result<(), BrokenInvariant> {
        let own: BTreeSet<ShardId> = ShardId::of_group(group).collect();
        let found: BTreeSet<ShardId> = self.entries.keys().copied().collect();
        require(own == found, "a group has all its own shards and no others", || format!("{found:?}"))?;
        for (shard, entry) in &self.entries {
            let told = || format!("shard {}: {entry:?}", shard.0);
            let is_planned_from_another = entry.heir.is_none() || entry.owner.is_some() && entry.heir != entry.owner;
            require(is_planned_from_another, "a shard with an heir has another node as its owner", told)?;
            let is_at_its_end = entry.last_range.is_none_or(|(from, to)| from < to && to == entry.committed_offset);
            require(is_at_its_end, "the last range ends at the committed offset", told)?;
            require(entry.outcomes.is_conserved(), "every click read has exactly one outcome", told)?;
        }
        let lowest = self.lowest_watermark_ms();
        require(self.watermark_ms >= lowest, "the group's watermark is not below that of every shard", || {
            format!("{} below {lowest}", self.watermark_ms)
        })
    }

    pub(crate) fn put(&self, head: &mut HeadWriter) -> Result<(), HeadError> {
        let Shards { entries, watermark_ms } = self;
        head.put(&SHARDS, entries)?;
        head.put(&WATERMARK_MS, watermark_ms)
    }

    pub(crate) fn take(head: &mut HeadReader) -> Result<Shards, HeadError> {
        Ok(Shards { entries: head.take(&SHARDS)?, watermark_ms: head.take(&WATERMARK_MS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_breaks;

    const GROUP: GroupId = GroupId(0);
    const SHARD: ShardId = ShardId(3);

    fn broken(change: impl FnOnce(&mut Shards)) -> Result<(), BrokenInvariant> {
        let mut shards = Shards::of_group(GROUP);
        shards.check(GROUP).unwrap();
        change(&mut shards);
        shards.check(GROUP)
    }

    #[test]
    fn each_rule_is_broken_once() {
        let missing = broken(|shards| shards.entries.retain(|shard, _| *shard != SHARD));
        assert_breaks(missing, "a group has all its own shards and no others");
        let entry = |change: fn(&mut ShardEntry)| broken(|shards| change(shards.get_mut(SHARD).unwrap()));
        let own_heir = entry(|shard| (shard.owner, shard.heir) = (Some(1), Some(1)));
        assert_breaks(own_heir, "a shard with an heir has another node as its owner");
        assert_breaks(entry(|shard| shard.last_range = Some((2, 5))), "the last range ends at the committed offset");
        assert_breaks(entry(|shard| shard.outcomes.read = 1), "every click read has exactly one outcome");
        let ahead = broken(|shards| shards.entries.values_mut().for_each(|shard| shard.watermark_ms = 1));
        assert_breaks(ahead, "the group's watermark is not below that of every shard");
    }

    #[test]
    fn the_watermark_is_the_lowest_and_never_goes_back() {
        let mut shards = Shards::of_group(GROUP);
        shards.entries.values_mut().for_each(|entry| entry.watermark_ms = 10);
        shards.advance_watermark();
        assert_eq!(shards.watermark_ms(), 10);
        shards.get_mut(SHARD).unwrap().watermark_ms = 4;
        shards.advance_watermark();
        assert_eq!(shards.watermark_ms(), 10);
    }
}
