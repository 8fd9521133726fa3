//! The cells of one minute: a hash table that may be shared while it is changed, at the price of the cells changed and no more.
//!
//! It has [`PARTS`] parts, and each part a *base* and, now and then, an *overlay*, both behind pointers. Sharing a table (for a
//! snapshot, for a reader) copies the pointers.
//!
//! 1. While nobody shares the base, changes go into it.
//! 2. While somebody does, a cell that changes is first copied into the overlay, and found there from then on. Copying the part
//!    instead would be simpler, but a checkpoint that touches every minute would then copy every cell there is, under the lock
//!    that readers and the next applies wait for.
//! 3. The first change after the base is ours again folds the overlay into it: what that costs was paid in by earlier changes.
//!
//! Whose a base is, is asked once for all changes of a checkpoint ([`CellTableChange`]): the answer needs an atomic operation that lets
//! no memory access overtake it, and overtaking is how the processor waits for many cells at once.

use std::sync::Arc;

use clicktally_proto::ids::{AdId, CampaignId};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::cell::Cell;

const PARTS: usize = 64;
const PART_BITS: u32 = PARTS.ilog2();

pub(crate) type CellId = (CampaignId, AdId);
type Cells = HashMap<CellId, Cell, foldhash::fast::RandomState>;

#[derive(Debug, Clone)]
pub(crate) struct CellTable {
    parts: Vec<Part>,
    cells: usize,
}

#[derive(Debug, Clone, Default)]
struct Part {
    base: Arc<Cells>,
    /// Cells changed, or new, since the base came to be shared; they hide those of the base.
    overlay: Option<Arc<Cells>>,
}

impl Default for CellTable {
    fn default() -> CellTable {
        CellTable { parts: (0..PARTS).map(|_| Part::default()).collect(), cells: 0 }
    }
}

impl PartialEq for CellTable {
    fn eq(&self, other: &CellTable) -> bool {
        self.cells == other.cells && self.iter().all(|(id, cell)| other.get(*id) == Some(cell))
    }
}

impl Eq for CellTable {}

impl CellTable {
    pub(crate) fn len(&self) -> usize {
        self.cells
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CellId, &Cell)> {
        self.parts.iter().flat_map(Part::iter)
    }

    /// Part by part, each sorted: an order that depends on the cells alone, at the price of sorting one part at a time.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        self.parts.iter().flat_map(|part| {
            let mut cells: Vec<(CellId, &Cell)> = part.iter().map(|(id, cell)| (*id, cell)).collect();
            cells.sort_unstable_by_key(|(id, _)| *id);
            cells
        })
    }

    pub(crate) fn change(&mut self) -> CellTableChange<'_> {
        let parts = self.parts.iter_mut().map(PartChange::Closed).collect();
        CellTableChange { parts, cells: &mut self.cells }
    }

    pub(crate) fn get(&self, id: CellId) -> Option<&Cell> {
        self.parts[part_of(id)].get(&id)
    }
}

/// Fibonacci hashing (Knuth, TAOCP 6.4): ids that follow each other go to different parts.
fn part_of((campaign_id, ad_id): CellId) -> usize {
    let mixed = (campaign_id ^ ad_id.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - PART_BITS)) as usize
}

impl Part {
    fn get(&self, id: &CellId) -> Option<&Cell> {
        self.overlay.as_ref().and_then(|overlay| overlay.get(id)).or_else(|| self.base.get(id))
    }

    fn iter(&self) -> impl Iterator<Item = (&CellId, &Cell)> {
        let overlay = self.overlay.as_deref();
        let is_current = move |id: &CellId| overlay.is_none_or(|overlay| !overlay.contains_key(id));
        self.base.iter().filter(move |(id, _)| is_current(id)).chain(overlay.into_iter().flat_map(Cells::iter))
    }

    /// Says into what changes go, and puts things straight where that is the base.
    fn open(&mut self) -> PartChange<'_> {
        let Part { base, overlay } = self;
        // Only we could share it further, so a base that is ours stays ours as long as this part is borrowed.
        if Arc::strong_count(base) == 1 {
            let base = Arc::make_mut(base);
            if let Some(overlay) = overlay.take() {
                base.extend(Arc::unwrap_or_clone(overlay));
            }
            return PartChange::Own(base);
        }
        PartChange::Shared { base, overlay: Arc::make_mut(overlay.get_or_insert_default()) }
    }
}

/// A table while it is changed.
pub(crate) struct CellTableChange<'a> {
    parts: Vec<PartChange<'a>>,
    cells: &'a mut usize,
}

enum PartChange<'a> {
    /// Nothing of it was changed yet.
    Closed(&'a mut Part),
    Own(&'a mut Cells),
    Shared {
        base: &'a Cells,
        overlay: &'a mut Cells,
    },
    /// Between closed and open.
    Opening,
}

impl CellTableChange<'_> {
    /// The cell, made if there is none.
    #[inline]
    pub(crate) fn entry(&mut self, id: CellId, make: impl FnOnce() -> Cell) -> &mut Cell {
        let part = &mut self.parts[part_of(id)];
        if matches!(part, PartChange::Closed(_))
            && let PartChange::Closed(closed) = std::mem::replace(part, PartChange::Opening)
        {
            *part = closed.open();
        }
        let cells = &mut *self.cells;
        let make = || {
            *cells += 1;
            make()
        };
        match part {
            PartChange::Own(base) => base.entry(id).or_insert_with(make),
            PartChange::Shared { base, overlay } => match overlay.entry(id) {
                Entry::Occupied(changed) => changed.into_mut(),
                Entry::Vacant(unchanged) => unchanged.insert(base.get(&id).cloned().unwrap_or_else(make)),
            },
            PartChange::Closed(_) | PartChange::Opening => unreachable!("it has been opened above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clicktally_proto::counts::CostSum;
    use proptest::prelude::*;

    use super::*;

    fn add(table: &mut CellTable, id: CellId, clicks: u64) {
        table.change().entry(id, Cell::new).merge(0, clicks, (0, CostSum::default(), None), 0);
    }

    fn clicks(table: &CellTable) -> BTreeMap<CellId, u64> {
        table.iter().map(|(id, cell)| (*id, cell.clicks())).collect()
    }

    fn overlaid(table: &CellTable) -> usize {
        table.parts.iter().filter_map(|part| part.overlay.as_ref()).map(|overlay| overlay.len()).sum()
    }

    fn base_of(table: &CellTable, id: CellId) -> *const Cells {
        Arc::as_ptr(&table.parts[part_of(id)].base)
    }

    #[test]
    fn a_change_of_a_shared_table_copies_the_cells_it_changes_and_no_others() {
        let mut table = CellTable::default();
        (0..50_000).for_each(|ad_id| add(&mut table, (1, ad_id), 1));
        let bases: Vec<_> = (0..PARTS).map(|part| Arc::as_ptr(&table.parts[part].base)).collect();
        let frozen = table.clone();
        // One in a hundred, all over the table, and new ones.
        (0..50_000).step_by(100).for_each(|ad_id| add(&mut table, (1, ad_id), 1));
        (0..30).for_each(|ad_id| add(&mut table, (2, ad_id), 1));
        assert_eq!(overlaid(&table), 530);
        assert!((0..PARTS).all(|part| Arc::as_ptr(&table.parts[part].base) == bases[part]), "a base was copied");
        assert_eq!((frozen.len(), table.len()), (50_000, 50_030));
        assert!(frozen.iter().all(|(_, cell)| cell.clicks() == 1), "what was frozen has changed");

        // Unshared again, the next change of a part puts things straight, in the same base.
        drop(frozen);
        (0..50_000).for_each(|ad_id| add(&mut table, (1, ad_id), 0));
        assert_eq!(overlaid(&table), 0);
        assert_eq!(base_of(&table, (1, 0)), bases[part_of((1, 0))]);
        assert_eq!(table.iter().filter(|(_, cell)| cell.clicks() == 2).count(), 500);
    }

    proptest! {
        /// Whatever is shared when, each holder sees its own moment, and equal contents are equal however they came about.
        #[test]
        fn every_holder_keeps_the_table_of_its_moment(
            steps in proptest::collection::vec((0_u64..3, 0_u64..40, 0_u64..9, any::<bool>(), any::<bool>()), 1..120)
        ) {
            let (mut table, mut model) = (CellTable::default(), BTreeMap::new());
            let mut held: Vec<(CellTable, BTreeMap<CellId, u64>)> = Vec::new();
            for (campaign_id, ad_id, clicks, shares, drops) in steps {
                add(&mut table, (campaign_id, ad_id), clicks);
                *model.entry((campaign_id, ad_id)).or_insert(0) += clicks;
                if shares { held.push((table.clone(), model.clone())); }
                if drops && !held.is_empty() { held.swap_remove(0); }
            }
            held.push((table, model));
            for (table, model) in held {
                prop_assert_eq!(clicks(&table), model.clone());
                prop_assert_eq!(table.len(), model.len());
                let mut afresh = CellTable::default();
                model.iter().for_each(|(id, clicks)| add(&mut afresh, *id, *clicks));
                prop_assert!(afresh.sorted().eq(table.sorted()));
                prop_assert_eq!(&afresh, &table);
            }
        }
    }
}
