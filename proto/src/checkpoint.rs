//! A shard's checkpoint: the offsets it has read and everything they amount to, as one replicated command.
//!
//! Offsets and counts cannot disagree because they are one entry: the architecture's exactly-once rests on this file and on
//! the apply rule that takes it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::counts::{CellDelta, CellKey, Counts};
use crate::event_time::{Minute, UnixMillis};
use crate::seen_ids::SeenBlock;
use crate::shard_key::ShardId;
use crate::varint;

/// Grows with each owner of a shard; a smaller one is fenced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// What became of every click a shard read. The conservation equation:
/// `read = counted + duplicate + late + invalid + quarantined + misrouted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    pub read: u64,
    pub counted: u64,
    pub duplicate: u64,
    pub late: u64,
    pub invalid: u64,
    /// Records (not clicks: nobody can count the clicks of a record nobody can read), plus clicks dated too far ahead.
    pub quarantined: u64,
    /// Found in another shard's partition and republished to their own.
    pub misrouted: u64,
}

impl OutcomeCounts {
    pub fn is_conserved(&self) -> bool {
        self.read == self.counted + self.duplicate + self.late + self.invalid + self.quarantined + self.misrouted
    }

    pub fn add(&mut self, other: &OutcomeCounts) {
        self.read += other.read;
        self.counted += other.counted;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.invalid += other.invalid;
        self.quarantined += other.quarantined;
        self.misrouted += other.misrouted;
    }
}

/// `[from, to)` of the shard's partition, and its deltas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub from: u64,
    pub to: u64,
    /// The shard's watermark after these records; never below an earlier one.
    pub watermark_ms: UnixMillis,
    /// Wall time up to which everything in the partition has been read: the arrival of the last record read, or, where the
    /// partition is proven read to its end, the time of that proof.
    pub complete_to_ms: UnixMillis,
    pub outcomes: OutcomeCounts,
    pub cells: CellBlock,
    pub seen: Vec<SeenBlock>,
}

/// Cell deltas, columnar: grouped by minute, sorted by campaign and ad, keys delta-encoded as varints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellBlock {
    #[serde(with = "serde_bytes")]
    packed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a block of cell deltas is damaged at byte {at}")]
pub struct DamagedCells {
    pub at: usize,
}

impl CellBlock {
    /// Sorts `cells` in place; each key at most once.
    pub fn pack(cells: &mut [CellDelta]) -> CellBlock {
        cells.sort_unstable_by_key(|cell| cell.key);
        let mut packed = Vec::with_capacity(cells.len() * 8 + 8);
        let mut minute_before = 0_u64;
        for window in cells.chunk_by(|a, b| a.key.minute == b.key.minute) {
            let minute = u64::from(window[0].key.minute.0);
            varint::write(minute - minute_before, &mut packed);
            varint::write(window.len() as u64, &mut packed);
            minute_before = minute;
            let (mut campaign_before, mut ad_before) = (0_u64, 0_u64);
            for CellDelta { key, counts } in window {
                varint::write(key.campaign_id - campaign_before, &mut packed);
                if key.campaign_id != campaign_before {
                    ad_before = 0;
                }
                varint::write(key.ad_id - ad_before, &mut packed);
                (campaign_before, ad_before) = (key.campaign_id, key.ad_id);
                // The low bit says whether an invalid count follows: it seldom does.
                let flag = u64::from(counts.invalid_clicks > 0);
                varint::write(counts.clicks << 1 | flag, &mut packed);
                if flag == 1 {
                    varint::write(counts.invalid_clicks, &mut packed);
                }
            }
        }
        CellBlock { packed }
    }

    pub fn unpack(&self) -> Result<Vec<CellDelta>, DamagedCells> {
        let mut at = 0;
        let mut cells = Vec::new();
        let mut minute = 0_u64;
        while at < self.packed.len() {
            let damaged = DamagedCells { at };
            let mut next = || varint::read(&self.packed, &mut at).ok_or(damaged);
            minute = minute.checked_add(next()?).ok_or(damaged)?;
            let window_minute = Minute(u32::try_from(minute).map_err(|_| damaged)?);
            let length = next()?;
            let (mut campaign_id, mut ad_id) = (0_u64, 0_u64);
            for _ in 0..length {
                let campaign_delta = next()?;
                if campaign_delta != 0 {
                    ad_id = 0;
                }
                campaign_id = campaign_id.checked_add(campaign_delta).ok_or(damaged)?;
                ad_id = ad_id.checked_add(next()?).ok_or(damaged)?;
                let clicks = next()?;
                let invalid_clicks = if clicks & 1 == 1 { next()? } else { 0 };
                cells.push(CellDelta {
                    key: CellKey { minute: window_minute, campaign_id, ad_id },
                    counts: Counts { clicks: clicks >> 1, invalid_clicks },
                });
            }
        }
        Ok(cells)
    }

    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_gives_the_sorted_cells(raw in proptest::collection::btree_map(
            (0_u32..5, 0_u64..4, 0_u64..1_000), (0_u64..1 << 60, 0_u64..3), 0..100)) {
            let raw: BTreeMap<(u32, u64, u64), (u64, u64)> = raw;
            let sorted: Vec<CellDelta> = raw.into_iter().map(|((minute, campaign_id, ad_id), (clicks, invalid_clicks))| CellDelta {
                key: CellKey { minute: Minute(minute), campaign_id, ad_id },
                counts: Counts { clicks, invalid_clicks },
            }).collect();
            let mut shuffled = sorted.clone();
            shuffled.reverse();
            prop_assert_eq!(CellBlock::pack(&mut shuffled).unpack().unwrap(), sorted);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(packed in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = CellBlock { packed }.unpack();
        }
    }
}
