//! Ids minted by this cluster: one compressed bitmap for each run (worker and minute of minting) and minute of event
//! time.
//!
//! Nearly all clicks of a run belong to one or two minutes of event time, so a lookup reads one or two bitmaps. When a
//! minute becomes final, its bitmaps are dropped.

use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::shard_key::MintedRun;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::Horizon;

/// What a run costs besides its bitmaps: its slot in the table, and its list.
const RUN_BYTES: usize = 48;
/// What a bitmap costs besides its containers' data.
const BITMAP_BYTES: usize = 64;

#[derive(Debug, Default)]
struct Run {
    by_minute: Vec<(Minute, RoaringBitmap)>,
}

#[derive(Debug, Default)]
pub(super) struct MintedIds {
    runs: HashMap<MintedRun, Run, foldhash::fast::RandomState>,
}

impl MintedIds {
    #[inline]
    pub(super) fn insert(&mut self, run: MintedRun, code: u32, minute: Minute, horizon: &Horizon) -> bool {
        let by_minute = &mut self.runs.entry(run).or_default().by_minute;
        // Forgotten bitmaps are dropped before an insert could write to them, so that a forgotten id stays forgotten.
        if by_minute.iter().any(|(held, _)| horizon.is_forgotten(*held)) {
            by_minute.retain(|(held, _)| !horizon.is_forgotten(*held));
        }
        let mut own = None;
        for (index, (held, codes)) in by_minute.iter().enumerate() {
            if *held == minute {
                own = Some(index);
            } else if codes.contains(code) {
                return false;
            }
        }
        match own {
            Some(index) => by_minute[index].1.insert(code),
            None => {
                by_minute.push((minute, RoaringBitmap::from_iter([code])));
                true
            }
        }
    }

    pub(super) fn contains(&self, run: MintedRun, code: u32, horizon: &Horizon) -> bool {
        let by_minute = self.runs.get(&run).map_or(&[][..], |run| &run.by_minute);
        by_minute.iter().any(|(held, codes)| !horizon.is_forgotten(*held) && codes.contains(code))
    }

    pub(super) fn sweep(&mut self, horizon: &Horizon) {
        self.runs.retain(|_, run| {
            run.by_minute.retain(|(held, _)| !horizon.is_forgotten(*held));
            !run.by_minute.is_empty()
        });
        if self.runs.len() * 4 < self.runs.capacity() {
            self.runs.shrink_to_fit();
        }
    }

    fn bitmaps(&self) -> impl Iterator<Item = &RoaringBitmap> {
        self.runs.values().flat_map(|run| &run.by_minute).map(|(_, codes)| codes)
    }

    pub(super) fn len(&self) -> u64 {
        self.bitmaps().map(RoaringBitmap::len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        let held: usize = self.bitmaps().map(|codes| BITMAP_BYTES + codes.serialized_size()).sum();
        held + self.runs.len() * RUN_BYTES
    }
}
