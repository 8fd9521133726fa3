//! Cell deltas of one checkpoint, column by column, so that a measure nobody has costs nothing.
//!
//! A block is its windows in order of time:
//!
//! ```text
//! window   = minute − minute before ‖ cells ‖ { campaign } ‖ clicks ‖ invalid ‖ costs ‖ { cost sum } ‖ marks ‖ { sketch }
//! campaign = (id − id before) << 1 ‖ ad id                                   one ad
//!          | (id − id before) << 1 | 1 ‖ ads − 2 ‖ { ad id − ad id before }  several
//! column   = 0 ‖ { value }                                                   each cell's value
//!          | guess ‖ exceptions ‖ { cells since the last one ‖ value }       what is not as guessed
//! ```
//!
//! all varints, but for sketches, which are as [`UserSketch::write_to`] writes them. Guesses: one click, no invalid one; a cost for
//! none or for every click; a user for none or for every click. Cost sums and sketches stand only for cells that have them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::counts::{CellDelta, CellKey, CostSum, Counts};
use crate::event_time::Minute;
use crate::money::Micros;
use crate::user_mark::REGISTERS;
use crate::user_sketch::UserSketch;
use crate::varint;

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

/// What a column's value most probably is, from the clicks of its cell.
type Guess = fn(u64) -> u64;

const CLICKS: [Guess; 1] = [|_| 1];
const INVALID: [Guess; 1] = [|_| 0];
const COSTS: [Guess; 2] = [|_| 0, |clicks| clicks];
const MARKS: [Guess; 2] = [|_| 0, |clicks| clicks];

impl CellBlock {
    /// Sorts `cells` in place; each key at most once, ids below 2^63, cost sums not below zero.
    pub fn pack(cells: &mut [CellDelta]) -> CellBlock {
        cells.sort_unstable_by_key(|cell| cell.key);
        let mut packed = Vec::with_capacity(cells.len() * 8 + 16);
        let mut minute_before = 0_u64;
        for window in cells.chunk_by(|a, b| a.key.minute == b.key.minute) {
            let minute = u64::from(window[0].key.minute.0);
            varint::write(minute - minute_before, &mut packed);
            minute_before = minute;
            write_keys(window, &mut packed);
            write_column(window, |counts| counts.clicks, &CLICKS, &mut packed);
            write_column(window, |counts| counts.invalid_clicks, &INVALID, &mut packed);
            write_column(window, |counts| counts.costs.count, &COSTS, &mut packed);
            for CellDelta { counts, .. } in window {
                if counts.costs.count > 0 {
                    assert!(counts.costs.sum_micros >= 0);
                    varint::write(counts.costs.sum_micros.unsigned_abs(), &mut packed);
                }
            }
            write_column(window, |counts| counts.users.marks() as u64, &MARKS, &mut packed);
            window.iter().for_each(|cell| cell.counts.users.write_to(&mut packed));
        }
        CellBlock { packed }
    }

    /// In the order of their keys.
    pub fn unpack(&self) -> Result<Vec<CellDelta>, DamagedCells> {
        let mut reader = Reader { packed: &self.packed, at: 0 };
        let mut cells = Vec::new();
        let mut minute = 0_u64;
        while reader.at < self.packed.len() {
            minute = minute.checked_add(reader.next()?).ok_or(reader.damaged())?;
            let window_minute = Minute(u32::try_from(minute).map_err(|_| reader.damaged())?);
            let first = cells.len();
            reader.read_keys(window_minute, &mut cells)?;
            let window = &mut cells[first..];
            let column = reader.read_column(window, &CLICKS)?;
            window.iter_mut().zip(column).for_each(|(cell, clicks)| cell.counts.clicks = clicks);
            let column = reader.read_column(window, &INVALID)?;
            window.iter_mut().zip(column).for_each(|(cell, invalid)| cell.counts.invalid_clicks = invalid);
            let column = reader.read_column(window, &COSTS)?;
            for (cell, count) in window.iter_mut().zip(column).filter(|(_, count)| *count > 0) {
                cell.counts.costs = CostSum { sum_micros: reader.read_micros()?, count };
            }
            let column = reader.read_column(window, &MARKS)?;
            for (cell, marks) in window.iter_mut().zip(column).filter(|(_, marks)| *marks > 0) {
                cell.counts.users = reader.read_sketch(marks)?;
            }
        }
        Ok(cells)
    }

    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }
}

/// The keys of one window, sorted.
fn write_keys(window: &[CellDelta], packed: &mut Vec<u8>) {
    varint::write(window.len() as u64, packed);
    let mut campaign_before = 0;
    for ads in window.chunk_by(|a, b| a.key.campaign_id == b.key.campaign_id) {
        let campaign_id = ads[0].key.campaign_id;
        let step = campaign_id - campaign_before;
        assert!(step < 1 << 63);
        campaign_before = campaign_id;
        varint::write(step << 1 | u64::from(ads.len() > 1), packed);
        if ads.len() > 1 {
            varint::write(ads.len() as u64 - 2, packed);
        }
        let mut ad_before = 0;
        for ad in ads {
            varint::write(ad.key.ad_id - ad_before, packed);
            ad_before = ad.key.ad_id;
        }
    }
}

fn write_column(window: &[CellDelta], value: impl Fn(&Counts) -> u64, guesses: &[Guess], packed: &mut Vec<u8>) {
    let wrong = |guess: Guess| window.iter().filter(|cell| value(&cell.counts) != guess(cell.counts.clicks)).count();
    let best = (1_u64..).zip(guesses).map(|(form, guess)| (wrong(*guess), form, *guess)).min_by_key(|best| best.0);
    // An exception takes two bytes or so, a value one.
    let Some((exceptions, form, guess)) = best.filter(|best| best.0 * 2 <= window.len()) else {
        varint::write(0, packed);
        window.iter().for_each(|cell| varint::write(value(&cell.counts), packed));
        return;
    };
    varint::write(form, packed);
    varint::write(exceptions as u64, packed);
    let mut next = 0;
    for (at, cell) in window.iter().enumerate() {
        let value = value(&cell.counts);
        if value != guess(cell.counts.clicks) {
            varint::write((at - next) as u64, packed);
            varint::write(value, packed);
            next = at + 1;
        }
    }
}

struct Reader<'a> {
    packed: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self) -> DamagedCells {
        DamagedCells { at: self.at }
    }

    fn next(&mut self) -> Result<u64, DamagedCells> {
        let damaged = self.damaged();
        varint::read(self.packed, &mut self.at).ok_or(damaged)
    }

    /// A number of things that take a byte each at least: damage must not make anybody reserve gigabytes.
    fn next_length(&mut self) -> Result<usize, DamagedCells> {
        let damaged = self.damaged();
        let length = usize::try_from(self.next()?).ok();
        length.filter(|length| *length <= self.packed.len() - self.at).ok_or(damaged)
    }

    /// Appends the window's cells, not counted yet.
    fn read_keys(&mut self, minute: Minute, cells: &mut Vec<CellDelta>) -> Result<(), DamagedCells> {
        let mut left = self.next_length()?;
        cells.reserve(left);
        let mut campaign_id = 0_u64;
        while left > 0 {
            let step = self.next()?;
            campaign_id = campaign_id.checked_add(step >> 1).ok_or(self.damaged())?;
            let ads = if step & 1 == 0 { 1 } else { self.next_length()?.saturating_add(2) };
            left = left.checked_sub(ads).ok_or(self.damaged())?;
            let mut ad_id = 0_u64;
            for _ in 0..ads {
                ad_id = ad_id.checked_add(self.next()?).ok_or(self.damaged())?;
                cells.push(CellDelta { key: CellKey { minute, campaign_id, ad_id }, counts: Counts::default() });
            }
        }
        Ok(())
    }

    /// The values of one column. What they are guessed from must have been read before.
    fn read_column(&mut self, window: &[CellDelta], guesses: &[Guess]) -> Result<Vec<u64>, DamagedCells> {
        let form = usize::try_from(self.next()?).map_err(|_| self.damaged())?;
        if form == 0 {
            return window.iter().map(|_| self.next()).collect();
        }
        let guess = guesses.get(form - 1).ok_or(self.damaged())?;
        let mut values: Vec<u64> = window.iter().map(|cell| guess(cell.counts.clicks)).collect();
        let mut next = 0_usize;
        for _ in 0..self.next_length()? {
            let skipped = usize::try_from(self.next()?).map_err(|_| self.damaged())?;
            let at = next.checked_add(skipped).ok_or(self.damaged())?;
            *values.get_mut(at).ok_or(self.damaged())? = self.next()?;
            next = at + 1;
        }
        Ok(values)
    }

    fn read_micros(&mut self) -> Result<Micros, DamagedCells> {
        Micros::try_from(self.next()?).map_err(|_| self.damaged())
    }

    fn read_sketch(&mut self, marks: u64) -> Result<UserSketch, DamagedCells> {
        let damaged = self.damaged();
        let marks = usize::try_from(marks).ok().filter(|marks| *marks <= REGISTERS).ok_or(damaged)?;
        let end = self.at + UserSketch::bytes_of(marks);
        let sketch = self.packed.get(self.at..end).and_then(|bytes| UserSketch::from_bytes(bytes).ok());
        self.at = end;
        sketch.filter(|sketch| sketch.marks() == marks).ok_or(damaged)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::user_mark::UserMark;

    type Raw = BTreeMap<(u32, u64, u64), Counts>;

    fn cells_of(raw: Raw) -> Vec<CellDelta> {
        let key = |(minute, campaign_id, ad_id)| CellKey { minute: Minute(minute), campaign_id, ad_id };
        raw.into_iter().map(|(raw, counts)| CellDelta { key: key(raw), counts }).collect()
    }

    fn sketch_of(users: std::ops::Range<u32>) -> UserSketch {
        let mut sketch = UserSketch::default();
        users.filter_map(|user| UserMark::of(&user.to_le_bytes())).for_each(|mark| sketch.insert(mark));
        sketch
    }

    prop_compose! {
        fn counts()(
            clicks in prop_oneof![Just(1_u64), 0_u64..1 << 60], invalid_clicks in prop_oneof![5 => Just(0_u64), 1 => 0_u64..3],
            costs in proptest::option::of((1_u64..9, 0..i64::MAX)), is_each_costed in any::<bool>(),
            users in prop_oneof![4 => Just(0_u32), 4 => Just(1_u32), 4 => 0_u32..30, 1 => 0_u32..3_000],
        ) -> Counts {
            let costs = costs.map_or(CostSum::default(), |(count, sum_micros)| {
                CostSum { sum_micros, count: if is_each_costed { clicks.max(1) } else { count } }
            });
            Counts { clicks, invalid_clicks, costs, users: sketch_of(0..users) }
        }
    }

    proptest! {
        #[test]
        fn unpacking_gives_the_sorted_cells(raw in proptest::collection::btree_map((0_u32..5, 0_u64..4, 0_u64..1_000), counts(), 0..60)) {
            let sorted = cells_of(raw);
            let mut shuffled = sorted.clone();
            shuffled.reverse();
            prop_assert_eq!(CellBlock::pack(&mut shuffled).unpack().unwrap(), sorted);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(packed in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = CellBlock { packed }.unpack();
        }

        #[test]
        fn a_flipped_byte_never_panics(raw in proptest::collection::btree_map((0_u32..3, 0_u64..4, 0_u64..99), counts(), 1..20), at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut block = CellBlock::pack(&mut cells_of(raw));
            let at = at.index(block.packed.len());
            block.packed[at] = value;
            let _ = block.unpack();
        }
    }

    #[test]
    fn ids_up_to_the_limit_and_any_count_are_carried() {
        let counts = Counts { clicks: u64::MAX, invalid_clicks: u64::MAX, ..Counts::default() };
        let key = |campaign_id, ad_id| CellKey { minute: Minute(u32::MAX), campaign_id, ad_id };
        let most = i64::MAX.unsigned_abs();
        let cells = [key(0, most), key(most, 0), key(most, most)].map(|key| CellDelta { key, counts: counts.clone() });
        assert_eq!(CellBlock::pack(&mut cells.clone()).unpack().unwrap(), cells);
    }

    /// One shard's share of so many clicks of one minute, in the mix that the figures of performance.md were measured with: 100,000
    /// ads of 1,000 campaigns by Zipf's law (skew 1), every click of another user.
    fn share_of_a_shard(clicks: u32, with_users: bool) -> Vec<CellDelta> {
        let weights: f64 = (1..=100_000).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut cells = Raw::new();
        let mut behind = 0.0;
        let mut user = 0;
        for ad in 1..=100_000_u32 {
            // Ads get their share of clicks in turn: as many ads are clicked as in a random draw, or some more.
            behind += f64::from(clicks) / f64::from(ad) / weights;
            while behind >= 1.0 {
                behind -= 1.0;
                user += 1;
                let key = (29_000_000, u64::from(ad % 1_000 + 1), u64::from(ad));
                let counts = cells.entry(key).or_default();
                counts.clicks += 1;
                if with_users {
                    counts.users.merge(&sketch_of(user..user + 1));
                }
            }
        }
        cells_of(cells)
    }

    #[test]
    fn a_cell_takes_some_three_bytes_and_a_user_two_more() {
        // A second of a shard: at 2,800 clicks/s in all, at a million.
        for (clicks, bytes_per_cell_max) in [(175, 3.5), (62_500, 3.0)] {
            let mut plain = share_of_a_shard(clicks, false);
            let mut with_users = share_of_a_shard(clicks, true);
            let marks: usize = with_users.iter().map(|cell| cell.counts.users.marks()).sum();
            let plain_bytes = CellBlock::pack(&mut plain).packed_bytes() as f64;
            let bytes = CellBlock::pack(&mut with_users).packed_bytes() as f64;
            let cells = plain.len() as f64;
            assert!(plain_bytes / cells <= bytes_per_cell_max, "{} bytes a cell", plain_bytes / cells);
            assert!((bytes - plain_bytes) / marks as f64 <= 2.1, "{bytes} with {marks} marks, {plain_bytes} without");
        }
    }
}
