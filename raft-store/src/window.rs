//! One minute of event time over all shards of a group: its cells, and how far its life has come.
//!
//! Cells lie in [`PARTS`] parts, each behind a pointer: whoever reads or snapshots a window shares them, and the next merge copies
//! only the parts it touches. Within a part there is no order; what must be the same on every replica (the encoded form) is
//! sorted when it is made.

use std::sync::Arc;

use clicktally_proto::counts::{CellDelta, Counts};
use clicktally_proto::event_time::Minute;
use clicktally_proto::ids::{AdId, CampaignId};
use clicktally_proto::money::Micros;
use clicktally_proto::window_count::{WindowCount, WindowState};
use hashbrown::HashMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PARTS: usize = 64;
const PART_BITS: u32 = PARTS.ilog2();

type Part = HashMap<(CampaignId, AdId), Cell, foldhash::fast::RandomState>;

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

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    #[serde(serialize_with = "sorted", deserialize_with = "parted")]
    parts: Parts,
    pub(crate) fired_at: Option<u64>,
    pub(crate) final_at: Option<u64>,
    /// Newest entry that changed a cell.
    pub(crate) changed_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts(Vec<Arc<Part>>);

impl Default for Parts {
    fn default() -> Parts {
        Parts((0..PARTS).map(|_| Arc::default()).collect())
    }
}

impl Parts {
    /// Fibonacci hashing (Knuth, TAOCP 6.4): ids that follow each other go to different parts.
    fn of(&mut self, campaign_id: CampaignId, ad_id: AdId) -> &mut Arc<Part> {
        let mixed = (campaign_id ^ ad_id.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &mut self.0[(mixed >> (u64::BITS - PART_BITS)) as usize]
    }

    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

fn sorted<S: Serializer>(parts: &Parts, serializer: S) -> Result<S::Ok, S::Error> {
    let mut cells: Vec<_> = parts.0.iter().flat_map(|part| part.iter()).collect();
    cells.sort_unstable_by_key(|(key, _)| **key);
    cells.serialize(serializer)
}

fn parted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parts, D::Error> {
    let cells: Vec<((CampaignId, AdId), Cell)> = Vec::deserialize(deserializer)?;
    let (count, mut parts) = (cells.len(), Parts::default());
    for ((campaign_id, ad_id), cell) in cells {
        Arc::make_mut(parts.of(campaign_id, ad_id)).insert((campaign_id, ad_id), cell);
    }
    if parts.len() == count { Ok(parts) } else { Err(D::Error::custom("a cell stands twice in a window")) }
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
        let cells = self.parts.0.iter().flat_map(|part| part.iter());
        cells.map(|(&(campaign_id, ad_id), cell)| (campaign_id, ad_id, cell))
    }

    pub fn cell_count(&self) -> usize {
        self.parts.len()
    }

    /// Adds what one checkpoint counted for one cell.
    pub(crate) fn merge(&mut self, index: u64, delta: &CellDelta, spend_micros: Micros) {
        let (campaign_id, ad_id) = (delta.key.campaign_id, delta.key.ad_id);
        let part = Arc::make_mut(self.parts.of(campaign_id, ad_id));
        let cell = part.entry((campaign_id, ad_id)).or_insert(Cell {
            counts: Counts::default(),
            spend_micros: 0,
            changed_at: index,
        });
        cell.counts.merge(&delta.counts);
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
