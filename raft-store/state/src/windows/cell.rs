//! What replicated state holds of one (campaign, ad) of one minute, in one piece: as readers see it, and as snapshots
//! hold it. In memory its parts lie in the columns of a [`CellRun`](crate::windows::cell_run::CellRun).

use clicktally_proto::counts::cell_counts::{CostSum, Counts};
use clicktally_proto::counts::user_sketch::UserSketch;
use clicktally_proto::money::Micros;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub(crate) counts: Counts,
    pub(crate) spend_micros: Micros,
    pub(crate) changed_at: u64,
}

impl Cell {
    /// Distinct valid on-time clicks.
    pub fn clicks(&self) -> u64 {
        self.counts.clicks
    }

    /// Distinct on-time clicks that the validity rules exclude.
    pub fn invalid_clicks(&self) -> u64 {
        self.counts.invalid_clicks
    }

    pub fn costs(&self) -> CostSum {
        self.counts.costs
    }

    pub fn users(&self) -> &UserSketch {
        &self.counts.users
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn spend_micros(&self) -> Micros {
        self.spend_micros
    }

    /// Log index of the entry that changed it last.
    pub fn changed_at(&self) -> u64 {
        self.changed_at
    }
}
