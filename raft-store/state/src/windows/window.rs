//! One minute of event time over all shards of a group: its cells, and how far its life has come.
//!
//! The cells are in [`CellRuns`], which readers and snapshots of a window share: a copy of it is a copy of pointers.

use clicktally_proto::counts::window_count::{WindowCount, WindowState};
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{AdId, CampaignId};
use clicktally_proto::money::Micros;
use serde::{Deserialize, Serialize};

use crate::windows::cell::Cell;
use crate::windows::cell_run::CellRun;
use crate::windows::cell_runs::{CellRuns, MergeAllowance};

/// Its encoded form is that of everything but the cells: a snapshot holds those in chunks of their own behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    #[serde(skip)]
    pub(crate) cells: CellRuns,
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

    /// In order. Sums up what checkpoints brought, which takes as long as the window is large: call it outside the
    /// lock.
    pub fn cells(&self) -> impl Iterator<Item = (CampaignId, AdId, Cell)> + use<> {
        self.cells.cells().map(|((campaign_id, ad_id), cell)| (campaign_id, ad_id, cell))
    }

    /// The cells of one ad, with their campaigns. Looks at every id, and at nothing else.
    pub fn cells_of_ad(&self, ad_id: AdId) -> impl Iterator<Item = (CampaignId, Cell)> + use<> {
        self.cells.of_ad(ad_id).map(|((campaign_id, _), cell)| (campaign_id, cell))
    }

    pub fn cell(&self, campaign_id: CampaignId, ad_id: AdId) -> Option<Cell> {
        self.cells.get((campaign_id, ad_id))
    }

    /// What clicks cost, by campaign: several for each, in no particular order, and nothing is summed up first.
    pub fn spends(&self) -> impl Iterator<Item = (CampaignId, Micros)> {
        self.cells.spends()
    }

    /// Adds what one checkpoint counted of this minute.
    pub(crate) fn add(&mut self, run: CellRun, allowance: &mut MergeAllowance) {
        self.changed_at = run.newest();
        self.cells.push(run, allowance);
    }

    /// Rows whose revision is above `published`; none while the window is open.
    pub fn rows_after(&self, minute: Minute, published: u64) -> impl Iterator<Item = WindowCount> + use<> {
        let (fired_at, final_at) = (self.fired_at, self.final_at);
        // An open window has no rows, and is not summed up to find none.
        let cells = fired_at.map(|_| self.cells()).into_iter().flatten();
        cells.filter_map(move |(campaign_id, ad_id, cell)| {
            let fired_at = fired_at?;
            let state = match final_at {
                Some(_) => WindowState::Final,
                None if cell.changed_at() > fired_at => WindowState::Corrected,
                None => WindowState::Fired,
            };
            let revision = cell.changed_at().max(fired_at).max(final_at.unwrap_or(0));
            (revision > published).then(|| WindowCount {
                ad_id,
                campaign_id,
                minute: minute.0,
                clicks: cell.clicks(),
                invalid_clicks: cell.invalid_clicks(),
                spend_micros: cell.spend_micros(),
                revision,
                state: state.into(),
                unique_users: cell.users().estimate(),
                user_sketch: cell.users().to_bytes(),
                cost_sum_micros: cell.costs().sum_micros,
                cost_count: cell.costs().count,
            })
        })
    }
}
