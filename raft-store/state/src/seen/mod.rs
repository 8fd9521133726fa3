//! The ids of the clicks that are counted, as their owners packed them: what a new owner of a shard must know to go
//! on deduplicating.

use std::collections::BTreeMap;
use std::sync::Arc;

use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;

use crate::check::{BrokenInvariant, require};

/// The bytes that a block of seen ids is charged in addition to its ids.
const SEEN_BLOCK_BYTES: u64 = 96;

/// The blocks of each minute of event time, in the order in which they were committed.
type Minutes = BTreeMap<Minute, Vec<Arc<SeenBlock>>>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenIds {
    /// Only shards that have seen ids.
    shards: BTreeMap<ShardId, Minutes>,
    charge: SeenCharge,
}

/// What blocks of seen ids are charged by the law of [`crate::limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenCharge {
    pub blocks: u64,
    /// The bytes of the packed ids.
    pub packed_bytes: u64,
}

impl SeenCharge {
    pub fn bytes(self) -> u64 {
        self.blocks * SEEN_BLOCK_BYTES + self.packed_bytes
    }

    pub(crate) fn of<'a>(blocks: impl IntoIterator<Item = &'a SeenBlock>) -> SeenCharge {
        let mut charge = SeenCharge::default();
        blocks.into_iter().for_each(|block| charge.add(block));
        charge
    }

    fn add(&mut self, block: &SeenBlock) {
        self.blocks += 1;
        self.packed_bytes += block.packed_bytes() as u64;
    }

    fn remove(&mut self, block: &SeenBlock) {
        let packed_bytes = block.packed_bytes() as u64;
        debug_assert!(self.blocks > 0 && self.packed_bytes >= packed_bytes, "a block leaves that was never charged");
        self.blocks -= 1;
        self.packed_bytes -= packed_bytes;
    }
}

impl SeenIds {
    pub(crate) fn charge(&self) -> SeenCharge {
        self.charge
    }

    pub(crate) fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = &Arc<SeenBlock>> {
        self.shards.get(&shard).into_iter().flat_map(|minutes| minutes.values().flatten())
    }

    /// In the order of a snapshot.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (ShardId, &Arc<SeenBlock>)> {
        self.shards.iter().flat_map(|(shard, minutes)| minutes.values().flatten().map(move |block| (*shard, block)))
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }

    pub(crate) fn add(&mut self, shard: ShardId, block: Arc<SeenBlock>) {
        self.charge.add(&block);
        self.shards.entry(shard).or_default().entry(block.minute).or_default().push(block);
    }

    /// Forgets the ids of a shard's final minutes: no click of such a minute is counted any more.
    pub(crate) fn forget(&mut self, shard: ShardId, is_final: impl Fn(Minute) -> bool) {
        let Some(minutes) = self.shards.get_mut(&shard) else { return };
        let charge = &mut self.charge;
        minutes.retain(|minute, blocks| {
            let stays = !is_final(*minute);
            if !stays {
                blocks.iter().for_each(|block| charge.remove(block));
            }
            stays
        });
        if minutes.is_empty() {
            self.shards.remove(&shard);
        }
    }

    /// Breaks the order of a shard's blocks, so that a test can show what notices.
    #[cfg(test)]
    pub(crate) fn misplace(&mut self, shard: ShardId, block: Arc<SeenBlock>) {
        let wrong = Minute(block.minute.0 + 1);
        self.shards.entry(shard).or_default().entry(wrong).or_default().push(block);
    }

    /// The charge, counted from scratch: takes as long as there are blocks.
    pub(crate) fn recount(&self) -> SeenCharge {
        SeenCharge::of(self.blocks().map(|(_, block)| &**block))
    }

    /// Checks the blocks of one shard.
    pub(crate) fn check_shard(&self, shard: ShardId) -> Result<(), BrokenInvariant> {
        let Some(minutes) = self.shards.get(&shard) else { return Ok(()) };
        let told = || format!("shard {}", shard.0);
        let is_in_place = minutes.iter().all(|(minute, blocks)| blocks.iter().all(|block| block.minute == *minute));
        require(is_in_place, "a block of seen ids is under its own minute", told)?;
        let is_full = !minutes.is_empty() && minutes.values().all(|blocks| !blocks.is_empty());
        require(is_full, "no table of seen ids is empty", told)
    }

    pub(crate) fn check(&self) -> Result<(), BrokenInvariant> {
        self.shards().try_for_each(|shard| self.check_shard(shard))?;
        let (charge, recount) = (self.charge, self.recount());
        require(charge == recount, "the charge of seen ids is that of a recount", || format!("{charge:?}, {recount:?}"))
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::ids::ClickId;
    use clicktally_proto::identity::shard_key::Place;

    use super::*;
    use crate::check::assert_breaks;

    const SHARD: ShardId = ShardId(3);

    fn block(minute: u32) -> Arc<SeenBlock> {
        Arc::new(SeenBlock::pack(Minute(minute), &mut [Place::of(ClickId(minute.into()))]))
    }

    fn seen() -> SeenIds {
        let mut seen = SeenIds::default();
        [5, 5, 6].into_iter().for_each(|minute| seen.add(SHARD, block(minute)));
        seen.check().unwrap();
        seen
    }

    #[test]
    fn forgotten_ids_are_no_longer_charged_and_leave_no_empty_table() {
        let mut seen = seen();
        assert_eq!(seen.charge().blocks, 3);
        seen.forget(SHARD, |minute| minute == Minute(5));
        assert_eq!((seen.charge().blocks, seen.of_shard(SHARD).count()), (1, 1));
        seen.forget(SHARD, |_| true);
        assert_eq!(seen, SeenIds::default());
    }

    #[test]
    fn each_rule_is_broken_once() {
        let mut misplaced = seen();
        misplaced.misplace(SHARD, block(8));
        assert_breaks(misplaced.check(), "a block of seen ids is under its own minute");
        let mut emptied = seen();
        emptied.shards.entry(SHARD).or_default().insert(Minute(7), Vec::new());
        assert_breaks(emptied.check(), "no table of seen ids is empty");
        let mut miscounted = seen();
        miscounted.charge.blocks += 1;
        assert_breaks(miscounted.check(), "the charge of seen ids is that of a recount");
    }
}
