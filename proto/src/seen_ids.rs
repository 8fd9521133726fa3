//! The ids a shard has counted since its last checkpoint, packed per minute of event time: sorted, delta-encoded varints.
//!
//! Replicas keep these blocks as they came and never look inside; only a new owner of the shard unpacks them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event_time::Minute;
use crate::ids::ClickId;
use crate::varint;

/// Ids of one minute, one checkpoint. No order between blocks is implied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBlock {
    pub minute: Minute,
    packed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a block of seen ids is damaged at byte {at}; restore this replica from a peer")]
pub struct DamagedBlock {
    pub at: usize,
}

impl SeenBlock {
    /// Sorts `ids` in place; each id at most once.
    pub fn pack(minute: Minute, ids: &mut [ClickId]) -> SeenBlock {
        ids.sort_unstable();
        let mut packed = Vec::with_capacity(ids.len() * 4 + 4);
        varint::write(ids.len() as u64, &mut packed);
        let mut last = 0;
        for id in ids {
            varint::write(id.0.wrapping_sub(last), &mut packed);
            last = id.0;
        }
        packed.shrink_to_fit();
        SeenBlock { minute, packed }
    }

    pub fn unpack(&self) -> Result<Vec<ClickId>, DamagedBlock> {
        let mut at = 0;
        let damaged = |at| DamagedBlock { at };
        let length = varint::read(&self.packed, &mut at).ok_or_else(|| damaged(0))?;
        let length = usize::try_from(length).map_err(|_| damaged(0))?;
        // Each id takes a byte at least: refuse a length that the bytes cannot hold before allocating for it.
        if length > self.packed.len() {
            return Err(damaged(0));
        }
        let mut ids = Vec::with_capacity(length);
        let mut last = 0_u64;
        for _ in 0..length {
            let delta = varint::read(&self.packed, &mut at).ok_or_else(|| damaged(at))?;
            last = last.wrapping_add(delta);
            ids.push(ClickId(last));
        }
        if at == self.packed.len() { Ok(ids) } else { Err(damaged(at)) }
    }

    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_gives_the_sorted_ids(mut raw in proptest::collection::btree_set(any::<u64>(), 0..200)) {
            let mut ids: Vec<ClickId> = raw.iter().copied().map(ClickId).collect();
            ids.reverse();
            let block = SeenBlock::pack(Minute(3), &mut ids);
            let unpacked = block.unpack().unwrap();
            prop_assert_eq!(unpacked, std::mem::take(&mut raw).into_iter().map(ClickId).collect::<Vec<_>>());
        }

        #[test]
        fn damage_is_an_error_not_a_panic(packed in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = SeenBlock { minute: Minute(0), packed }.unpack();
        }
    }
}
