//! Ids minted by this cluster: one compressed bitmap for each run (worker and minute of minting) and minute of event time.
//!
//! Nearly all clicks of a run belong to one or two minutes of event time, so that a lookup asks one or two bitmaps; and a minute
//! that is final leaves by dropping its bitmaps.

use clicktally_proto::event_time::Minute;
use clicktally_proto::shard_key::MintedRun;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::Horizon;

/// What a run costs beside its bitmaps: its slot in the table, and its list.
const RUN_BYTES: usize = 48;
/// What a bitmap costs beside its containers' data.
const BITMAP_BYTES: usize = 72;

#[derive(Debug, Default)]
struct Run {
    by_minute: Vec<(Minute, Codes)>,
}

/// A bitmap, and how it grows: clicks nearly arrive in the order of their ids, and a code behind all others needs no search.
#[derive(Debug)]
struct Codes {
    bitmap: RoaringBitmap,
    largest: u32,
    /// How many codes have been put into the container of the largest one.
    beside_largest: u32,
}

impl Codes {
    /// Up to so many codes a container is a sorted array, where only the last place is found without a search; above it a plain bitmap,
    /// where any place is, but the largest code is not.
    const ARRAY_MAX: u32 = 4_096;

    fn of(code: u32) -> Codes {
        Codes { bitmap: RoaringBitmap::from_iter([code]), largest: code, beside_largest: 1 }
    }

    #[inline]
    fn insert(&mut self, code: u32) -> bool {
        let container_of = |code: u32| code >> 16;
        let is_beside_largest = container_of(code) == container_of(self.largest);
        let is_appended = code > self.largest && (!is_beside_largest || self.beside_largest < Codes::ARRAY_MAX);
        let is_new = if is_appended { self.bitmap.try_push(code).is_ok() } else { self.bitmap.insert(code) };
        if is_beside_largest {
            self.beside_largest += u32::from(is_new);
        } else if is_appended {
            self.beside_largest = 1;
        }
        self.largest = self.largest.max(code);
        is_new
    }
}

#[derive(Debug, Default)]
pub(super) struct MintedIds {
    runs: HashMap<MintedRun, Run, foldhash::fast::RandomState>,
}

impl MintedIds {
    #[inline]
    pub(super) fn insert(&mut self, run: MintedRun, code: u32, minute: Minute, horizon: &Horizon) -> bool {
        let by_minute = &mut self.runs.entry(run).or_default().by_minute;
        // Forgotten bitmaps go before they could be written to again: what is forgotten stays so.
        if by_minute.iter().any(|(held, _)| horizon.is_forgotten(*held)) {
            by_minute.retain(|(held, _)| !horizon.is_forgotten(*held));
        }
        let mut own = None;
        for (index, (held, codes)) in by_minute.iter().enumerate() {
            if *held == minute {
                own = Some(index);
            } else if codes.bitmap.contains(code) {
                return false;
            }
        }
        match own {
            Some(index) => by_minute[index].1.insert(code),
            None => {
                by_minute.push((minute, Codes::of(code)));
                true
            }
        }
    }

    pub(super) fn contains(&self, run: MintedRun, code: u32, horizon: &Horizon) -> bool {
        let by_minute = self.runs.get(&run).map_or(&[][..], |run| &run.by_minute);
        by_minute.iter().any(|(held, codes)| !horizon.is_forgotten(*held) && codes.bitmap.contains(code))
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
        self.runs.values().flat_map(|run| &run.by_minute).map(|(_, codes)| &codes.bitmap)
    }

    pub(super) fn len(&self) -> u64 {
        self.bitmaps().map(RoaringBitmap::len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        let held: usize = self.bitmaps().map(|bitmap| BITMAP_BYTES + bitmap.serialized_size()).sum();
        held + self.runs.len() * RUN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Stretches in order, some across containers and some of more codes than an array has, repeated and behind each other.
        #[test]
        fn codes_are_new_once_in_whatever_order_they_come(
            stretches in proptest::collection::vec((0_u32..200_000, 1_usize..6_000, 1_u32..40), 1..8)
        ) {
            let mut codes = Codes::of(70_000);
            let mut model = BTreeSet::from([70_000]);
            for (first, length, step) in stretches {
                for code in (first..).step_by(step as usize).take(length) {
                    prop_assert_eq!(codes.insert(code), model.insert(code), "{}", code);
                }
            }
            prop_assert!(codes.bitmap.iter().eq(model));
        }
    }
}
