//! The rows of one transaction: the newest revision of each window, and late clicks by id. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::counts::window_count::{LateClick, WindowCount, WindowState};
use prost::Message;

/// Rows in one transaction.
const ROWS_MAX: usize = 50_000;
/// Bytes of user sketches in one transaction. A sketch of a hot ad has 2 KiB.
const SKETCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a row may wait for others after it was read. Steady traffic adds this to the age of a row in PostgreSQL.
const ROW_AGE_MAX: Duration = Duration::from_millis(250);

/// The records read from the outbound topics since the last transaction.
#[derive(Debug, Default)]
pub struct WindowRows {
    /// By (minute, ad, campaign): the newest revision of each.
    pub windows: BTreeMap<(u32, u64, u64), WindowCount>,
    /// By click id: the first record of each.
    pub late: BTreeMap<u64, LateClick>,
    /// (topic, partition) → (first offset read, next offset).
    pub progress: BTreeMap<(&'static str, i32), (i64, i64)>,
    /// Records that were skipped.
    pub undecodable: u64,
    /// The bytes of all sketches taken, including those that a newer revision replaced.
    sketch_bytes: usize,
}

impl WindowRows {
    /// True if nothing was read.
    pub fn is_empty(&self) -> bool {
        self.progress.is_empty()
    }

    /// Counts the rows that correct a window which had already fired.
    pub fn corrections(&self) -> u64 {
        self.windows.values().filter(|row| row.state() == WindowState::Corrected).count() as u64
    }

    /// Decides whether to write the rows now. `is_quiet`: no further record has arrived. `age`: time since the first
    /// record was read.
    pub fn are_due(&self, is_quiet: bool, age: Duration) -> bool {
        let are_many = self.windows.len() + self.late.len() >= ROWS_MAX || self.sketch_bytes >= SKETCH_BYTES_MAX;
        !self.is_empty() && (is_quiet || age >= ROW_AGE_MAX || are_many)
    }

    /// Takes the next record of an outbound topic. Records of one partition come in the order of their offsets.
    pub fn take(&mut self, topic: &str, partition: i32, offset: i64, value: &[u8]) {
        let topic = if topic == LATE_CLICKS { LATE_CLICKS } else { WINDOW_COUNTS };
        let range = self.progress.entry((topic, partition)).or_insert((offset, offset));
        range.1 = offset + 1;
        if topic == LATE_CLICKS {
            match LateClick::decode(value) {
                Ok(click) => {
                    self.late.entry(click.click_id).or_insert(click);
                }
                Err(_) => self.undecodable += 1,
            }
            return;
        }
        match WindowCount::decode(value) {
            Ok(row) => {
                self.sketch_bytes += row.user_sketch.len();
                match self.windows.entry((row.minute, row.ad_id, row.campaign_id)) {
                    Entry::Occupied(held) if held.get().revision >= row.revision => {}
                    entry => {
                        entry.insert_entry(row);
                    }
                }
            }
            Err(_) => self.undecodable += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revision_of_a_window_wins_in_any_order() {
        for revisions in [[1, 2, 3], [3, 1, 2]] {
            let mut rows = WindowRows::default();
            for (offset, revision) in revisions.into_iter().enumerate() {
                let row = WindowCount {
                    ad_id: 1,
                    campaign_id: 1,
                    minute: 5,
                    clicks: revision,
                    revision,
                    ..Default::default()
                };
                rows.take(WINDOW_COUNTS, 0, offset as i64, &row.encode_to_vec());
            }
            assert_eq!(rows.windows[&(5, 1, 1)].clicks, 3);
            assert_eq!(rows.progress[&(WINDOW_COUNTS, 0)], (0, 3));
        }
    }

    #[test]
    fn rows_leave_when_it_is_quiet_when_one_has_waited_long_enough_and_when_they_are_many() {
        let mut rows = WindowRows::default();
        assert!(!rows.are_due(true, ROW_AGE_MAX), "there is nothing to write");
        let take = |rows: &mut WindowRows, offset: i64| {
            let row =
                WindowCount { ad_id: offset.unsigned_abs(), minute: 5, clicks: 1, revision: 1, ..Default::default() };
            rows.take(WINDOW_COUNTS, 0, offset, &row.encode_to_vec());
        };
        take(&mut rows, 0);
        assert!(rows.are_due(true, Duration::ZERO));
        assert!(!rows.are_due(false, ROW_AGE_MAX / 2));
        assert!(rows.are_due(false, ROW_AGE_MAX), "steady traffic is never quiet");
        for offset in 1..ROWS_MAX as i64 {
            take(&mut rows, offset);
        }
        assert!(rows.are_due(false, Duration::ZERO));
        let mut rows = WindowRows::default();
        let row = WindowCount { ad_id: 1, user_sketch: vec![0; SKETCH_BYTES_MAX], ..Default::default() };
        rows.take(WINDOW_COUNTS, 0, 0, &row.encode_to_vec());
        assert!(rows.are_due(false, Duration::ZERO), "few rows may be many bytes");
    }

    #[test]
    fn garbage_is_counted_and_passed() {
        let mut rows = WindowRows::default();
        rows.take(WINDOW_COUNTS, 0, 7, b"\xff\xff");
        assert_eq!((rows.undecodable, rows.progress[&(WINDOW_COUNTS, 0)]), (1, (7, 8)));
    }
}
