//! Cells of one minute, sorted, in columns: what one checkpoint brought, or the sum of several. A run never changes
//! once it is made, so readers and snapshots of a window share it.
//!
//! Two runs are merged by walking through both in order, which a processor does several times faster than looking
//! each cell up in a table larger than its cache (`docs/decisions/016-runs-of-cells.md`).

use std::fmt;

use clicktally_proto::counts::cell_counts::Counts;
use clicktally_proto::counts::window_cells::{Sparse, WindowCells};
use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::{AdId, CampaignId};
use clicktally_proto::money::Micros;

use crate::windows::cell::Cell;

pub(crate) type CellId = (CampaignId, AdId);

/// What a cell is charged beside its invalid clicks, costs and users: id, clicks, spend and revision, whether they
/// differ or not.
pub const CELL_BYTES: u64 = (size_of::<CellId>() + size_of::<u64>() + size_of::<Micros>() + size_of::<u64>()) as u64;

/// Each value has one form, so that equal runs are equal in memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct CellRun {
    /// The cells name no minute: the window knows it.
    cells: WindowCells,
    /// One for each cell; empty where none cost anything.
    spend_micros: Vec<Micros>,
    /// The newest entry that changed any of these cells.
    newest: u64,
    /// The newest one for each cell; empty where that is `newest` for all of them.
    changed_at: Vec<u64>,
    /// What it is charged: never more when runs are merged than they were charged before.
    bytes: u64,
}

impl fmt::Debug for CellRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellRun({} cells, changed up to {})", self.len(), self.newest)
    }
}

impl CellRun {
    /// What the checkpoint at `newest` brought; `spend_micros` for each cell.
    pub(crate) fn of_checkpoint(newest: u64, cells: WindowCells, spend_micros: Vec<Micros>) -> CellRun {
        assert_eq!(cells.len(), spend_micros.len());
        let cells = WindowCells { minute: Minute::default(), ..cells };
        CellRun { cells, spend_micros, newest, ..CellRun::default() }.sealed()
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Bytes of memory, by a law that is the same on every replica: see [`crate::limits`].
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Campaign and spend of each cell; of none where none cost anything.
    pub(crate) fn spends(&self) -> impl Iterator<Item = (CampaignId, Micros)> {
        self.cells.ids.iter().zip(&self.spend_micros).map(|((campaign_id, _), spend)| (*campaign_id, *spend))
    }

    /// Campaign by campaign, the clicks and the spend of each of its cells.
    pub(crate) fn by_campaign(&self) -> impl Iterator<Item = (CampaignId, impl Iterator<Item = (u64, Micros)>)> {
        let mut next = 0;
        self.cells.ids.chunk_by(|a, b| a.0 == b.0).map(move |ids| {
            let numbers = next..next + ids.len();
            next = numbers.end;
            (ids[0].0, numbers.map(|number| (self.cells.clicks[number], self.spend_of(number))))
        })
    }

    /// That cell alone, if it is here.
    pub(crate) fn only(&self, id: CellId) -> Option<CellRun> {
        self.picked(self.cells.ids.binary_search(&id).ok().into_iter())
    }

    /// The cells of an ad, which may be in several campaigns, if any are here. Looks at every id.
    pub(crate) fn only_ad(&self, ad_id: AdId) -> Option<CellRun> {
        let is_of_it = |(number, id): (usize, &CellId)| (id.1 == ad_id).then_some(number);
        self.picked(self.cells.ids.iter().enumerate().filter_map(is_of_it))
    }

    /// The cells of these numbers, which rise; `None` without any.
    fn picked(&self, numbers: impl Iterator<Item = usize>) -> Option<CellRun> {
        let mut picked = CellRun::begun(self.newest);
        for number in numbers {
            let row = self.next_row(&mut Cursor::at(&self.cells, number));
            let is_behind = row.is_some_and(|(id, cell)| picked.restore(id, cell));
            assert!(is_behind, "a run is not in order");
        }
        (picked.len() > 0).then(|| picked.sealed())
    }

    /// In order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (CellId, Cell)> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || self.next_row(&mut cursor))
    }

    /// The cell the cursor stands before; `None` at the end.
    pub(crate) fn next_row(&self, cursor: &mut Cursor) -> Option<(CellId, Cell)> {
        let number = cursor.number;
        let id = *self.cells.ids.get(number)?;
        let counts = cursor.step(&self.cells);
        let cell = Cell { counts, spend_micros: self.spend_of(number), changed_at: self.changed_at(number) };
        Some((id, cell))
    }

    /// To be filled from a snapshot.
    pub(crate) fn begun(newest: u64) -> CellRun {
        CellRun { newest, ..CellRun::default() }
    }

    /// Puts back a cell of a snapshot. `false`, and nothing changed, where it does not lie behind those that are
    /// here, or is newer than the run.
    pub(crate) fn restore(&mut self, id: CellId, cell: Cell) -> bool {
        if self.cells.ids.last().is_some_and(|last| *last >= id) || cell.changed_at > self.newest {
            return false;
        }
        self.cells.push(id, cell.counts);
        self.spend_micros.push(cell.spend_micros);
        self.changed_at.push(cell.changed_at);
        true
    }

    /// What was built bit by bit, in its one form.
    pub(crate) fn sealed(mut self) -> CellRun {
        if self.spend_micros.iter().all(|spend| *spend == 0) {
            self.spend_micros = Vec::new();
        }
        if self.changed_at.iter().all(|changed_at| *changed_at == self.newest) {
            self.changed_at = Vec::new();
        }
        let WindowCells { ids, clicks, invalid_clicks, costs, users, .. } = &mut self.cells;
        ids.shrink_to_fit();
        clicks.shrink_to_fit();
        invalid_clicks.shrink_to_fit();
        costs.shrink_to_fit();
        users.shrink_to_fit();
        self.spend_micros.shrink_to_fit();
        self.changed_at.shrink_to_fit();
        let dense = ids.len() as u64 * CELL_BYTES;
        let sparse =
            size_of_val(invalid_clicks.as_slice()) + size_of_val(costs.as_slice()) + size_of_val(users.as_slice());
        let sketches: usize = users.iter().map(|(_, users)| users.merged_bytes_max()).sum();
        self.bytes = dense + sparse as u64 + sketches as u64;
        self
    }

    /// Both together, by the merge law of [`Counts::merge`]: which is which does not matter.
    pub(crate) fn merge(one: &CellRun, other: &CellRun) -> CellRun {
        let (one_ids, other_ids) = (&one.cells.ids[..], &other.cells.ids[..]);
        let most = one_ids.len() + other_ids.len();
        let has_spend = !one.spend_micros.is_empty() || !other.spend_micros.is_empty();
        let mut cells = WindowCells::default();
        cells.ids.reserve_exact(most);
        cells.clicks.reserve_exact(most);
        let mut changed_at = Vec::with_capacity(most);
        let mut spend_micros = Vec::with_capacity(if has_spend { most } else { 0 });
        let replaces = is_broken(Mutant::MergeReplaces);
        let (mut left, mut right) = (0, 0);
        while left < one_ids.len() && right < other_ids.len() {
            let (ours, theirs) = (one_ids[left], other_ids[right]);
            // Which comes first is as good as random: selected, not branched upon.
            let (our_key, their_key) = (ordered(ours), ordered(theirs));
            let (is_ours, is_theirs) = (our_key <= their_key, their_key <= our_key);
            cells.ids.push(if is_ours { ours } else { theirs });
            let our_clicks = if is_ours && !(is_theirs && replaces) { one.cells.clicks[left] } else { 0 };
            let their_clicks = if is_theirs { other.cells.clicks[right] } else { 0 };
            cells.clicks.push(our_clicks.saturating_add(their_clicks));
            let our_change = if is_ours { one.changed_at(left) } else { 0 };
            let their_change = if is_theirs { other.changed_at(right) } else { 0 };
            changed_at.push(our_change.max(their_change));
            if has_spend {
                let our_spend = if is_ours { one.spend_of(left) } else { 0 };
                let their_spend = if is_theirs { other.spend_of(right) } else { 0 };
                spend_micros.push(our_spend.saturating_add(their_spend));
            }
            left += usize::from(is_ours);
            right += usize::from(is_theirs);
        }
        for (rest, from) in [(one, left), (other, right)] {
            cells.ids.extend_from_slice(&rest.cells.ids[from..]);
            cells.clicks.extend_from_slice(&rest.cells.clicks[from..]);
            changed_at.extend((from..rest.len()).map(|number| rest.changed_at(number)));
            if has_spend {
                spend_micros.extend((from..rest.len()).map(|number| rest.spend_of(number)));
            }
        }
        let sides = [&one.cells, &other.cells];
        cells.invalid_clicks =
            merge_sparse(sides.map(|side| renumbered(side, &side.invalid_clicks, &cells.ids)), |a, b| {
                *a = a.saturating_add(b);
            });
        cells.costs = merge_sparse(sides.map(|side| renumbered(side, &side.costs, &cells.ids)), |a, b| a.merge(b));
        cells.users = merge_sparse(sides.map(|side| renumbered(side, &side.users, &cells.ids)), |a, b| a.merge(&b));
        let newest = one.newest.max(other.newest);
        CellRun { cells, spend_micros, newest, changed_at, bytes: 0 }.sealed()
    }

    #[inline]
    fn changed_at(&self, number: usize) -> u64 {
        if self.changed_at.is_empty() { self.newest } else { self.changed_at[number] }
    }

    #[inline]
    fn spend_of(&self, number: usize) -> Micros {
        if self.spend_micros.is_empty() { 0 } else { self.spend_micros[number] }
    }
}

/// One integer in the order of ids: compared without a branch.
#[inline]
fn ordered((campaign_id, ad_id): CellId) -> u128 {
    u128::from(campaign_id) << u64::BITS | u128::from(ad_id)
}

/// A column of `side` by the numbers its cells have among `ids`, which holds all of them.
fn renumbered<T: Clone>(side: &WindowCells, column: &Sparse<T>, ids: &[CellId]) -> Sparse<T> {
    let mut at = 0;
    let place = |(number, value): &(u32, T)| {
        let id = side.ids[*number as usize];
        while ids[at] != id {
            at += 1;
        }
        (at as u32, value.clone())
    };
    column.iter().map(place).collect()
}

fn merge_sparse<T>([one, other]: [Sparse<T>; 2], add: impl Fn(&mut T, T)) -> Sparse<T> {
    if other.is_empty() {
        return one;
    }
    if one.is_empty() {
        return other;
    }
    let mut merged: Sparse<T> = Vec::with_capacity(one.len() + other.len());
    let mut other = other.into_iter().peekable();
    for (number, value) in one {
        while let Some(before) = other.next_if(|(held, _)| *held < number) {
            merged.push(before);
        }
        merged.push((number, value));
        if let (Some((_, more)), Some((_, value))) = (other.next_if(|(held, _)| *held == number), merged.last_mut()) {
            add(value, more);
        }
    }
    merged.extend(other);
    merged
}

/// A place between two cells of a run, with that in each of the sparse columns.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    number: usize,
    invalid_clicks: usize,
    costs: usize,
    users: usize,
}

impl Cursor {
    fn at(cells: &WindowCells, number: usize) -> Cursor {
        let is_before = |held: u32| (held as usize) < number;
        Cursor {
            number,
            invalid_clicks: cells.invalid_clicks.partition_point(|(held, _)| is_before(*held)),
            costs: cells.costs.partition_point(|(held, _)| is_before(*held)),
            users: cells.users.partition_point(|(held, _)| is_before(*held)),
        }
    }

    fn step(&mut self, cells: &WindowCells) -> Counts {
        let number = self.number as u32;
        self.number += 1;
        Counts {
            clicks: cells.clicks[number as usize],
            invalid_clicks: take(&cells.invalid_clicks, &mut self.invalid_clicks, number),
            costs: take(&cells.costs, &mut self.costs, number),
            users: take(&cells.users, &mut self.users, number),
        }
    }
}

#[inline]
fn take<T: Clone + Default>(column: &Sparse<T>, at: &mut usize, number: u32) -> T {
    match column.get(*at) {
        Some((held, value)) if *held == number => {
            *at += 1;
            value.clone()
        }
        _ => T::default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use clicktally_proto::counts::cell_counts::CostSum;
    use clicktally_proto::counts::user_mark::UserMark;
    use proptest::prelude::*;

    use super::*;

    pub(crate) type Model = BTreeMap<CellId, Cell>;

    prop_compose! {
        fn counts()(
            clicks in prop_oneof![4 => 0_u64..5, 1 => u64::MAX - 2..=u64::MAX], invalid_clicks in prop_oneof![3 => Just(0_u64), 1 => 1_u64..3],
            count in prop_oneof![2 => Just(0_u64), 1 => 1_u64..3], users in prop_oneof![2 => Just(0_u16), 3 => 1_u16..9, 1 => 9_u16..1_200], first in 0_u16..3,
        ) -> Counts {
            let costs = if count == 0 { CostSum::default() } else { CostSum { sum_micros: 7, count } };
            let mut counts = Counts { clicks, invalid_clicks, costs, ..Counts::default() };
            (first..first + users).filter_map(|user| UserMark::of(&user.to_le_bytes())).for_each(|mark| counts.users.insert(mark));
            counts
        }
    }

    prop_compose! {
        /// Few ids, so that most meet again.
        pub(crate) fn brought()(
            cells in proptest::collection::btree_map((0_u64..3, 0_u64..9), (counts(), 0_i64..3), 1..20), is_free in any::<bool>(),
        ) -> BTreeMap<CellId, (Counts, Micros)> {
            cells.into_iter().map(|(id, (counts, spend))| (id, (counts, if is_free { 0 } else { spend }))).collect()
        }
    }

    pub(crate) fn run_of(newest: u64, brought: &BTreeMap<CellId, (Counts, Micros)>) -> CellRun {
        let mut cells = WindowCells::new(Minute(7));
        brought.iter().for_each(|(id, (counts, _))| cells.push(*id, counts.clone()));
        CellRun::of_checkpoint(newest, cells, brought.values().map(|(_, spend)| *spend).collect())
    }

    pub(crate) fn add(model: &mut Model, index: u64, brought: &BTreeMap<CellId, (Counts, Micros)>) {
        for (id, (counts, spend_micros)) in brought {
            let cell = model.entry(*id).or_default();
            cell.counts.merge(counts);
            cell.spend_micros += spend_micros;
            cell.changed_at = cell.changed_at.max(index);
        }
    }

    /// What its columns have been given room for, and sketches hold.
    fn heap_bytes(run: &CellRun) -> usize {
        let WindowCells { ids, clicks, invalid_clicks, costs, users, .. } = &run.cells;
        ids.capacity() * size_of::<CellId>()
            + (clicks.capacity() + run.changed_at.capacity()) * size_of::<u64>()
            + run.spend_micros.capacity() * size_of::<Micros>()
            + invalid_clicks.capacity() * size_of::<(u32, u64)>()
            + costs.capacity() * size_of::<(u32, CostSum)>()
            + users.capacity() * size_of::<(u32, clicktally_proto::counts::user_sketch::UserSketch)>()
            + users.iter().map(|(_, users)| users.heap_bytes()).sum::<usize>()
    }

    proptest! {
        #[test]
        fn two_runs_come_to_what_the_merge_law_says_whichever_is_which(one in brought(), other in brought()) {
            let mut model = Model::new();
            add(&mut model, 3, &one);
            add(&mut model, 5, &other);
            let (one, other) = (run_of(3, &one), run_of(5, &other));
            let merged = CellRun::merge(&one, &other);
            prop_assert_eq!(&CellRun::merge(&other, &one), &merged);
            prop_assert_eq!(merged.rows().collect::<Model>(), model.clone());
            for (id, cell) in &model {
                let only = merged.only(*id).unwrap().rows().collect::<Vec<_>>();
                prop_assert_eq!(only, [(*id, cell.clone())]);
            }
            prop_assert_eq!(merged.only((9, 9)), None);
            prop_assert!(merged.bytes() <= one.bytes() + other.bytes(), "merging needs room");
            prop_assert!(heap_bytes(&merged) as u64 <= merged.bytes());
            let spent: Micros = merged.by_campaign().flat_map(|(_, cells)| cells).map(|(_, spend)| spend).sum();
            prop_assert_eq!(spent, model.values().map(|cell| cell.spend_micros).sum::<Micros>());
            prop_assert_eq!(merged.spends().map(|(_, spend)| spend).sum::<Micros>(), spent);
        }

        #[test]
        fn a_run_comes_back_as_it_was_and_out_of_order_not_at_all(one in brought(), other in brought()) {
            let run = CellRun::merge(&run_of(3, &one), &run_of(5, &other));
            let mut restored = CellRun::begun(5);
            for (id, cell) in run.rows() {
                prop_assert!(restored.restore(id, cell));
            }
            let (id, cell) = run.rows().last().unwrap();
            prop_assert!(!restored.restore(id, cell.clone()), "the same cell again");
            prop_assert!(!restored.restore((id.0, id.1 + 1), Cell { changed_at: 6, ..cell }), "newer than its run");
            let restored = restored.sealed();
            prop_assert!(heap_bytes(&restored) as u64 <= restored.bytes());
            prop_assert_eq!(restored, run);
        }
    }
}
