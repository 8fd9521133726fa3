//! Packs the cell deltas of one checkpoint column by column, so that a measure which no cell has costs nothing.
//!
//! A block is its windows in order of time, all varints except sketches:
//!
//! ```text
//! window   = minute − minute before ‖ cells ‖ { campaign } ‖ clicks ‖ invalid
//!            ‖ costs ‖ { cost sum } ‖ marks ‖ { sketch }
//! campaign = (id − id before) << 1 ‖ ad id                                   one ad
//!          | (id − id before) << 1 | 1 ‖ ads − 2 ‖ { ad id − ad id before }  several
//! column   = 0 ‖ { value }                                                   each cell's value
//!          | guess ‖ exceptions ‖ { cells since the last one ‖ value }       the values that differ from the guess
//! ```
//!
//! [`UserSketch::write_to`] writes the sketches. A column may follow a guess: one click; no invalid click; a cost for
//! no click or for every click; a user for no click or for every click. Only cells that have cost sums and sketches
//! list them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::counts::cell_counts::{CellDelta, CostSum};
use crate::counts::user_mark::REGISTERS;
use crate::counts::user_sketch::UserSketch;
use crate::counts::window_cells::{Sparse, WindowCells};
use crate::event_time::Minute;
use crate::identity::ids::{AdId, CampaignId};
use crate::money::Micros;
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

/// The most probable value of a column, given the clicks of its cell.
type Guess = fn(u64) -> u64;

const CLICKS: [Guess; 1] = [|_| 1];
const INVALID: [Guess; 1] = [|_| 0];
const COSTS: [Guess; 2] = [|_| 0, |clicks| clicks];
const MARKS: [Guess; 2] = [|_| 0, |clicks| clicks];

impl CellBlock {
    /// Takes windows in order of time, none empty. Ids are below 2^63, and cost sums are not negative.
    pub fn pack_windows(windows: &[WindowCells]) -> CellBlock {
        let cells: usize = windows.iter().map(WindowCells::len).sum();
        let mut packed = Vec::with_capacity(cells * 4 + 64);
        let mut minute_before = None;
        for window in windows {
            let minute = u64::from(window.minute.0);
            assert!(minute_before.is_none_or(|before| before < minute), "windows are packed in order of time");
            assert!(!window.is_empty(), "an empty window would not unpack");
            varint::write(minute - minute_before.unwrap_or(0), &mut packed);
            minute_before = Some(minute);
            write_window(window, &mut packed);
        }
        CellBlock { packed }
    }

    /// Sorts `cells`. Each key occurs at most once, ids are below 2^63, and cost sums are not negative.
    pub fn pack(cells: &mut [CellDelta]) -> CellBlock {
        cells.sort_unstable_by_key(|cell| cell.key);
        let windows = cells.chunk_by(|a, b| a.key.minute == b.key.minute).map(|cells| {
            let mut window = WindowCells::new(cells[0].key.minute);
            for CellDelta { key, counts } in cells {
                window.push((key.campaign_id, key.ad_id), counts.clone());
            }
            window
        });
        CellBlock::pack_windows(&windows.collect::<Vec<_>>())
    }

    /// Returns the windows in order of time. None is empty.
    pub fn unpack_windows(&self) -> Result<Vec<WindowCells>, DamagedCells> {
        let mut reader = Reader { packed: &self.packed, at: 0 };
        let mut windows: Vec<WindowCells> = Vec::new();
        while reader.at < self.packed.len() {
            let step = reader.next()?;
            let before = windows.last().map(|window| u64::from(window.minute.0));
            // A repeated minute would repeat cells.
            if before.is_some() && step == 0 {
                return Err(reader.damaged());
            }
            let minute = before.unwrap_or(0).checked_add(step).and_then(|minute| u32::try_from(minute).ok());
            windows.push(reader.read_window(Minute(minute.ok_or(reader.damaged())?))?);
        }
        Ok(windows)
    }

    /// Returns the cells in the order of their keys.
    pub fn unpack(&self) -> Result<Vec<CellDelta>, DamagedCells> {
        Ok(self.unpack_windows()?.iter().flat_map(WindowCells::deltas).collect())
    }

    pub fn packed_bytes(&self) -> usize {
        self.packed.len()
    }
}

fn write_window(window: &WindowCells, packed: &mut Vec<u8>) {
    write_ids(&window.ids, packed);
    let clicks = &window.clicks;
    assert_eq!(clicks.len(), window.ids.len(), "every cell has clicks");
    write_column(clicks, clicks.iter().copied(), &CLICKS, packed);
    write_sparse(clicks, &window.invalid_clicks, |invalid| *invalid, &INVALID, packed);
    write_sparse(clicks, &window.costs, |costs| costs.count, &COSTS, packed);
    for (_, costs) in &window.costs {
        assert!(costs.count > 0 && costs.sum_micros >= 0, "only costs above zero are added up: {costs:?}");
        varint::write(costs.sum_micros.unsigned_abs(), packed);
    }
    write_sparse(clicks, &window.users, |users| users.marks() as u64, &MARKS, packed);
    window.users.iter().for_each(|(_, users)| users.write_to(packed));
}

fn write_ids(ids: &[(CampaignId, AdId)], packed: &mut Vec<u8>) {
    varint::write(ids.len() as u64, packed);
    let mut campaign_before = 0;
    for ads in ids.chunk_by(|a, b| a.0 == b.0) {
        let campaign_id = ads[0].0;
        let step = campaign_id - campaign_before;
        assert!(step < 1 << 63, "campaign ids are at most ID_MAX, so a step has room for one bit");
        campaign_before = campaign_id;
        varint::write(step << 1 | u64::from(ads.len() > 1), packed);
        if ads.len() > 1 {
            varint::write(ads.len() as u64 - 2, packed);
        }
        let mut ad_before = 0;
        for (_, ad_id) in ads {
            varint::write(ad_id - ad_before, packed);
            ad_before = *ad_id;
        }
    }
}

/// Writes a column in which few cells have a value.
fn write_sparse<T>(clicks: &[u64], column: &Sparse<T>, value: fn(&T) -> u64, guesses: &[Guess], packed: &mut Vec<u8>) {
    if column.is_empty() {
        // The first guess is that no cell has a value, and there are no exceptions.
        packed.extend([1, 0]);
        return;
    }
    let mut numbers = column.iter().peekable();
    let values = (0..clicks.len() as u32)
        .map(move |number| numbers.next_if(|(held, _)| *held == number).map_or(0, |(_, held)| value(held)));
    write_column(clicks, values, guesses, packed);
}

fn write_column(clicks: &[u64], values: impl Iterator<Item = u64> + Clone, guesses: &[Guess], packed: &mut Vec<u8>) {
    let wrong = |guess: Guess| values.clone().zip(clicks).filter(|(value, clicks)| *value != guess(**clicks)).count();
    let best = (1_u64..).zip(guesses).map(|(form, guess)| (wrong(*guess), form, *guess)).min_by_key(|best| best.0);
    // An exception takes about two bytes, a value about one.
    let Some((exceptions, form, guess)) = best.filter(|best| best.0 * 2 <= clicks.len()) else {
        varint::write(0, packed);
        values.for_each(|value| varint::write(value, packed));
        return;
    };
    varint::write(form, packed);
    varint::write(exceptions as u64, packed);
    let mut next = 0;
    for (at, (value, clicks)) in values.zip(clicks).enumerate() {
        if value != guess(*clicks) {
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

    #[inline]
    fn next(&mut self) -> Result<u64, DamagedCells> {
        let damaged = self.damaged();
        varint::read(self.packed, &mut self.at).ok_or(damaged)
    }

    /// A number of items that take at least a byte each. The check keeps damaged bytes from reserving gigabytes.
    fn next_length(&mut self) -> Result<usize, DamagedCells> {
        let damaged = self.damaged();
        let length = usize::try_from(self.next()?).ok();
        length.filter(|length| *length <= self.packed.len() - self.at).ok_or(damaged)
    }

    fn read_window(&mut self, minute: Minute) -> Result<WindowCells, DamagedCells> {
        let ids = self.read_ids()?;
        let clicks = self.read_clicks(ids.len())?;
        let invalid_clicks = self.read_sparse(&clicks, &INVALID)?;
        let mut costs = Vec::new();
        for (number, count) in self.read_sparse(&clicks, &COSTS)? {
            costs.push((number, CostSum { sum_micros: self.read_micros()?, count }));
        }
        let mut users = Vec::new();
        for (number, marks) in self.read_sparse(&clicks, &MARKS)? {
            users.push((number, self.read_sketch(marks)?));
        }
        Ok(WindowCells { minute, ids, clicks, invalid_clicks, costs, users })
    }

    fn read_ids(&mut self) -> Result<Vec<(CampaignId, AdId)>, DamagedCells> {
        let mut left = self.next_length()?;
        if left == 0 || u32::try_from(left).is_err() {
            return Err(self.damaged());
        }
        let mut ids = Vec::with_capacity(left);
        let mut campaign_id = 0_u64;
        while left > 0 {
            let step = self.next()?;
            if step >> 1 == 0 && !ids.is_empty() {
                return Err(self.damaged());
            }
            campaign_id = campaign_id.checked_add(step >> 1).ok_or(self.damaged())?;
            let ads = if step & 1 == 0 { 1 } else { self.next_length()?.saturating_add(2) };
            left = left.checked_sub(ads).ok_or(self.damaged())?;
            let mut ad_id = 0_u64;
            for ad in 0..ads {
                let step = self.next()?;
                if step == 0 && ad > 0 {
                    return Err(self.damaged());
                }
                ad_id = ad_id.checked_add(step).ok_or(self.damaged())?;
                ids.push((campaign_id, ad_id));
            }
        }
        Ok(ids)
    }

    fn read_form(&mut self, guesses: &[Guess]) -> Result<Option<Guess>, DamagedCells> {
        match usize::try_from(self.next()?).map_err(|_| self.damaged())? {
            0 => Ok(None),
            form => guesses.get(form - 1).copied().map(Some).ok_or(self.damaged()),
        }
    }

    /// Hands over the number and value of each cell that differs from the guess.
    fn read_exceptions(&mut self, cells: usize, mut take: impl FnMut(usize, u64)) -> Result<(), DamagedCells> {
        let mut next = 0_usize;
        for _ in 0..self.next_length()? {
            let skipped = usize::try_from(self.next()?).map_err(|_| self.damaged())?;
            let at = next.checked_add(skipped).filter(|at| *at < cells).ok_or(self.damaged())?;
            take(at, self.next()?);
            next = at + 1;
        }
        Ok(())
    }

    fn read_clicks(&mut self, cells: usize) -> Result<Vec<u64>, DamagedCells> {
        let Some(guess) = self.read_form(&CLICKS)? else {
            return (0..cells).map(|_| self.next()).collect();
        };
        let mut clicks = vec![guess(0); cells];
        self.read_exceptions(cells, |at, value| clicks[at] = value)?;
        Ok(clicks)
    }

    /// The values of one column, without zeros.
    fn read_sparse(&mut self, clicks: &[u64], guesses: &[Guess]) -> Result<Sparse<u64>, DamagedCells> {
        let mut column = Vec::new();
        let mut put = |number: usize, value: u64| {
            if value > 0 {
                column.push((number as u32, value));
            }
        };
        match self.read_form(guesses)? {
            None => {
                for number in 0..clicks.len() {
                    put(number, self.next()?);
                }
            }
            Some(guess) => {
                // Where the guess is that no cell has a value, read only the exceptions.
                let mut guessed = if guess(1) == 0 { &[][..] } else { clicks }.iter().enumerate().peekable();
                self.read_exceptions(clicks.len(), |at, value| {
                    while let Some((number, clicks)) = guessed.next_if(|(number, _)| *number < at) {
                        put(number, guess(*clicks));
                    }
                    guessed.next_if(|(number, _)| *number == at);
                    put(at, value);
                })?;
                guessed.for_each(|(number, clicks)| put(number, guess(*clicks)));
            }
        }
        Ok(column)
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
    use crate::counts::cell_counts::{CellKey, Counts};
    use crate::counts::user_mark::UserMark;

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
        fn unpacking_returns_the_sorted_cells(raw in proptest::collection::btree_map((0_u32..5, 0_u64..4, 0_u64..1_000), counts(), 0..60)) {
            let sorted = cells_of(raw);
            let mut shuffled = sorted.clone();
            shuffled.reverse();
            prop_assert_eq!(CellBlock::pack(&mut shuffled).unpack().unwrap(), sorted);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(packed in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..64)) {
            let block = CellBlock { packed };
            for window in block.unpack_windows().unwrap_or_default() {
                prop_assert!(window.ids.is_sorted_by(|a, b| a < b), "the same cell twice");
                prop_assert!(window.users.is_sorted_by(|a, b| a.0 < b.0));
            }
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

    /// One shard's cells for this many clicks of one minute, in the mix of the figures in performance.md: 100,000 ads
    /// of 1,000 campaigns by Zipf's law (skew 1), with a different user for every click.
    fn share_of_a_shard(clicks: u32, with_users: bool) -> Vec<CellDelta> {
        let weights: f64 = (1..=100_000).map(|rank| 1.0 / f64::from(rank)).sum();
        let mut cells = Raw::new();
        let mut behind = 0.0;
        let mut user = 0;
        for ad in 1..=100_000_u32 {
            // Each ad gets its share of clicks in turn. So at least as many ads are clicked as in a random draw.
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
        // One second of one shard, at 2,800 and at a million clicks/s in all.
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
