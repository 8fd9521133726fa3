//! What the staged cells of a run sum to.

use clicktally_database::billing::StagedCell;

use crate::error::{BillingError, unsigned};

/// Clicks over all shards, for the run's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StagedTotals {
    pub(super) clicks: u64,
    pub(super) invalid_clicks: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
}

impl StagedTotals {
    pub(super) fn add(&mut self, cells: &[StagedCell]) -> Result<(), BillingError> {
        for cell in cells {
            self.clicks += unsigned(cell.clicks, "clicks")?;
            self.invalid_clicks += unsigned(cell.invalid_clicks, "clicks")?;
            self.duplicates += unsigned(cell.duplicates, "clicks")?;
            self.conflicts += unsigned(cell.conflicts, "clicks")?;
        }
        assert!(self.conflicts <= self.duplicates, "only a duplicate can conflict with the first copy");
        Ok(())
    }
}
