//! What the local replica of one group holds of a range of minutes. The copy takes pointers, not cells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::counts::window_count::WindowState;
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::identity::ids::AdId;
use clicktally_raft_store::group::Group;
use clicktally_state::windows::Window;

use super::ad_count::{AdCosts, AdCount};
use super::minute_range::MinuteRange;

#[derive(Debug, Clone)]
pub struct GroupView {
    pub rules: EventTimeRules,
    pub watermark_ms: UnixMillis,
    pub complete_to_ms: UnixMillis,
    pub staleness: Option<Duration>,
    pub windows: BTreeMap<Minute, Arc<Window>>,
}

impl GroupView {
    pub fn of(group: &Group, range: MinuteRange) -> GroupView {
        // Read the staleness first: what is read after it is at least as fresh.
        let staleness = group.staleness();
        group.read(|state| GroupView {
            rules: state.settings().map(|settings| settings.event_time).unwrap_or_default(),
            watermark_ms: state.watermark_ms(),
            complete_to_ms: state.complete_to_ms(),
            staleness,
            windows: state
                .windows()
                .range(range.from..range.to)
                .map(|(minute, window)| (*minute, Arc::clone(window)))
                .collect(),
        })
    }

    /// Whether this view alone answers for the minute: it holds the window, or the minute is not final and therefore
    /// empty. A final window may have left before its time of grace, for want of room.
    pub fn covers(&self, minute: Minute) -> bool {
        self.windows.contains_key(&minute) || !self.rules.is_final(minute, self.watermark_ms)
    }

    pub fn count(&self, minute: Minute, ad_id: AdId) -> AdCount {
        let mut count = AdCount::default();
        let cells = self.windows.get(&minute).into_iter().flat_map(|window| window.cells_of_ad(ad_id));
        for (campaign_id, cell) in cells {
            count.merge(AdCount {
                clicks: cell.clicks(),
                revision: cell.changed_at(),
                users: Some(cell.users().clone()),
                costs: Some(AdCosts::of_campaign(campaign_id, cell.costs())),
            });
        }
        count
    }

    pub fn state(&self, minute: Minute) -> WindowState {
        if let Some(window) = self.windows.get(&minute) {
            return window.state();
        }
        if self.rules.is_final(minute, self.watermark_ms) {
            WindowState::Final
        } else if self.rules.has_fired(minute, self.watermark_ms) {
            WindowState::Fired
        } else {
            WindowState::Unspecified
        }
    }
}
