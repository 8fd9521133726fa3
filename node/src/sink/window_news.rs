//! Finds the rows of a group that are not in the `window_counts` topic yet, and what its leader may report afterwards.
//! Pure.

use std::sync::Arc;

use clicktally_proto::click_log::{OutRecord, WINDOW_COUNTS};
use clicktally_proto::counts::window_count::WindowCount;
use clicktally_proto::event_time::Minute;
use clicktally_state::group_state::GroupState;
use clicktally_state::windows::Window;
use prost::Message;

/// Taken from one reading of a replica. It holds pointers, so that the lock is held only for a moment.
#[derive(Debug)]
pub struct WindowNews {
    published_revision: u64,
    newest_revision: u64,
    windows: Vec<(Minute, Arc<Window>)>,
}

impl WindowNews {
    pub fn of(state: &GroupState) -> WindowNews {
        WindowNews {
            published_revision: state.published_revision(),
            newest_revision: state.newest_revision(),
            windows: state.unpublished_windows(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The revision to report as published once every record of [`WindowNews::records`] is durable, and not before.
    pub fn newest_revision(&self) -> u64 {
        self.newest_revision
    }

    /// Makes one record for each changed row, as the caller asks for it.
    pub fn records(&self) -> impl Iterator<Item = OutRecord> {
        let published_revision = self.published_revision;
        let rows = move |(minute, window): &(Minute, Arc<Window>)| -> Vec<OutRecord> {
            window.rows_after(*minute, published_revision).map(|row| record_of(&row)).collect()
        };
        self.windows.iter().flat_map(rows)
    }
}

/// Compaction keeps the newest value of each (ad, campaign, minute).
fn record_of(row: &WindowCount) -> OutRecord {
    let mut key = Vec::with_capacity(20);
    key.extend_from_slice(&row.ad_id.to_be_bytes());
    key.extend_from_slice(&row.minute.to_be_bytes());
    key.extend_from_slice(&row.campaign_id.to_be_bytes());
    OutRecord { topic: WINDOW_COUNTS, partition: None, key, value: row.encode_to_vec() }
}
