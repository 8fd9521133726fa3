//! One minute of event time over all shards of a group: its cells, and how far its life has come.
//!
//! Cells lie in a [`CellTable`], which whoever reads or snapshots a window shares. There is no order in it; what must be the same on
//! every replica (the encoded form) is sorted when it is made.

use clicktally_proto::counts::{CellDelta, Counts};
use clicktally_proto::event_time::Minute;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::ids::{AdId, CampaignId};
use clicktally_proto::money::Micros;
use clicktally_proto::window_count::{WindowCount, WindowState};
use serde::{Deserialize, Serialize};

use crate::cell_table::{CellId, CellTable};

/// One (campaign, ad) of one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub counts: Counts,
    pub spend_micros: Micros,
    /// Log index of the entry that changed it last.
    pub changed_at: u64,
}

/// There may be tens of millions of these, with 16 bytes of key each: what few cells have stands behind a pointer.
const _: () = assert!(size_of::<Cell>() == 64);

/// Its encoded form is that of everything but the cells: a snapshot holds those in chunks of their own behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    #[serde(skip)]
    cells: CellTable,
    /// What the sketches of all cells hold beside the cells themselves.
    #[serde(skip)]
    sketch_bytes: u64,
    pub(crate) fired_at: Option<u64>,
    pub(crate) final_at: Option<u64>,
    /// Newest entry that changed a cell.
    pub(crate) changed_at: u64,
}

impl Window {
    pub fn state(&self) -> WindowState {
        match (self.final_at, self.fired_at) {
            (Some(_), _) => WindowState::Final,
            (None, Some(fired_at)) if self.changed_at > fired_at => WindowState::Corrected,
            (None, Some(_)) => WindowState::Fired,
            (None, None) => WindowState::Unspecified,
        }
    }

    /// The revision under which this window was last to be published; `None` while it is open.
    pub fn newest_revision(&self) -> Option<u64> {
        let fired_at = self.fired_at?;
        Some(fired_at.max(self.changed_at).max(self.final_at.unwrap_or(0)))
    }

    /// In no particular order.
    pub fn cells(&self) -> impl Iterator<Item = (CampaignId, AdId, &Cell)> {
        self.cells.iter().map(|(&(campaign_id, ad_id), cell)| (campaign_id, ad_id, cell))
    }

    pub fn cell(&self, campaign_id: CampaignId, ad_id: AdId) -> Option<&Cell> {
        self.cells.get((campaign_id, ad_id))
    }

    pub fn cell_count(&self) -> usize {
        self.cells.len()
    }

    /// What the cells' sketches of users take beside the cells.
    pub(crate) fn sketch_bytes(&self) -> u64 {
        self.sketch_bytes
    }

    /// In an order that depends on the cells alone.
    pub(crate) fn sorted_cells(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        self.cells.sorted()
    }

    /// Puts back a cell of a snapshot. Changes nothing and says `false` if there is one already.
    pub(crate) fn restore_cell(&mut self, id: CellId, cell: Cell) -> bool {
        let (cells, bytes) = (self.cells.len(), cell.counts.users.heap_bytes() as u64);
        self.cells.entry(id, || cell);
        let is_new = self.cells.len() > cells;
        self.sketch_bytes += if is_new { bytes } else { 0 };
        is_new
    }

    /// Adds what one checkpoint counted for one cell.
    pub(crate) fn merge(&mut self, index: u64, delta: &CellDelta, spend_micros: Micros) {
        let (campaign_id, ad_id) = (delta.key.campaign_id, delta.key.ad_id);
        let new = || Cell { counts: Counts::default(), spend_micros: 0, changed_at: index };
        let cell = self.cells.entry((campaign_id, ad_id), new);
        let bytes_before = cell.counts.users.heap_bytes();
        if is_broken(Mutant::MergeReplaces) {
            cell.counts.clicks = 0;
        }
        cell.counts.merge(&delta.counts);
        // A sketch only grows.
        self.sketch_bytes += (cell.counts.users.heap_bytes() - bytes_before) as u64;
        cell.spend_micros = cell.spend_micros.saturating_add(spend_micros);
        cell.changed_at = index;
        self.changed_at = index;
    }

    /// Rows whose revision is above `published`; none while the window is open.
    pub fn rows_after(&self, minute: Minute, published: u64) -> impl Iterator<Item = WindowCount> {
        let fired_at = self.fired_at;
        self.cells().filter_map(move |(campaign_id, ad_id, cell)| {
            let fired_at = fired_at?;
            let state = match self.final_at {
                Some(_) => WindowState::Final,
                None if cell.changed_at > fired_at => WindowState::Corrected,
                None => WindowState::Fired,
            };
            let revision = cell.changed_at.max(fired_at).max(self.final_at.unwrap_or(0));
            (revision > published).then(|| WindowCount {
                ad_id,
                campaign_id,
                minute: minute.0,
                clicks: cell.counts.clicks,
                invalid_clicks: cell.counts.invalid_clicks,
                spend_micros: cell.spend_micros,
                revision,
                state: state.into(),
                unique_users: cell.counts.users.estimate(),
                user_sketch: cell.counts.users.to_bytes(),
                cost_sum_micros: cell.counts.costs.sum_micros,
                cost_count: cell.counts.costs.count,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::counts::CellKey;
    use clicktally_proto::user_mark::UserMark;

    use super::*;

    #[test]
    fn sketches_are_charged_as_they_grow_and_when_they_come_back_from_a_snapshot() {
        let mut window = Window::default();
        for round in 0..200_u64 {
            let mut counts = Counts { clicks: 20, ..Counts::default() };
            (0..20).for_each(|user| counts.users.insert(UserMark::of(format!("{round}-{user}").as_bytes()).unwrap()));
            let growth_bytes_max = counts.users.growth_bytes_max() as u64;
            let bytes_before = window.sketch_bytes();
            let key = CellKey { minute: Minute(1), campaign_id: 1, ad_id: 1 + round % 3 * (round % 2) };
            window.merge(round + 1, &CellDelta { key, counts }, 0);
            let recounted: usize = window.cells().map(|(_, _, cell)| cell.counts.users.heap_bytes()).sum();
            assert_eq!(window.sketch_bytes(), recounted as u64, "after round {round}");
            assert!(window.sketch_bytes() - bytes_before <= growth_bytes_max, "in round {round}");
        }
        assert!(window.sketch_bytes() > 2_048, "no sketch has become dense");
        let mut restored = Window::default();
        for (id, cell) in window.sorted_cells() {
            assert!(restored.restore_cell(id, cell.clone()));
        }
        let (id, cell) = window.sorted_cells().next().unwrap();
        assert!(!restored.restore_cell(id, cell.clone()), "a cell came back twice");
        assert_eq!(restored.sketch_bytes(), window.sketch_bytes());
    }
}
