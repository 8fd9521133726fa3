//! CT-4: the published rows are those that the replicas hold.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_proto::counts::window_count::WindowCount;

use super::{Invariant, Violation};

/// (minute, ad, campaign).
pub type RowKey = (u32, u64, u64);

pub fn keyed(rows: impl Iterator<Item = WindowCount>) -> BTreeMap<RowKey, WindowCount> {
    rows.map(|row| ((row.minute, row.ad_id, row.campaign_id), row)).collect()
}

/// `held`: the rows of the replicas. Those up to the revision `published` must be in `written`. Replicas forget a
/// window some time after it is final, so written rows of a minute without held rows are not judged.
pub fn check(
    held: &BTreeMap<RowKey, WindowCount>,
    published: u64,
    written: &BTreeMap<RowKey, WindowCount>,
) -> Vec<Violation> {
    let minutes: BTreeSet<u32> = held.keys().map(|(minute, ..)| *minute).collect();
    let due = held.iter().filter(|(_, row)| row.revision <= published).map(|(key, _)| key);
    let in_a_held_minute = written.keys().filter(|(minute, ..)| minutes.contains(minute));
    let unheld = in_a_held_minute.filter(|key| !held.contains_key(*key));
    let differs = due.chain(unheld).filter(|key| held.get(*key) != written.get(*key));
    let detail = |key| format!("row {key:?}: {:?} written, {:?} held", written.get(key), held.get(key));
    differs.map(|key| Violation { invariant: Invariant::PublishedRows, detail: detail(key) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_missing_old_or_nobodys_is_seen_and_one_that_is_not_due_is_not() {
        let row = |minute, ad_id, revision| WindowCount { minute, ad_id, revision, ..WindowCount::default() };
        let rows =
            |rows: &[(u32, u64, u64)]| keyed(rows.iter().map(|&(minute, ad, revision)| row(minute, ad, revision)));
        let held = rows(&[(1, 1, 5), (1, 2, 6), (2, 1, 9)]);
        assert!(check(&held, 8, &rows(&[(0, 1, 1), (1, 1, 5), (1, 2, 6)])).is_empty());
        assert_eq!(check(&held, 8, &rows(&[(1, 1, 5)])).len(), 1, "missing");
        assert_eq!(check(&held, 8, &rows(&[(1, 1, 4), (1, 2, 6)])).len(), 1, "old");
        assert_eq!(check(&held, 8, &rows(&[(1, 1, 5), (1, 2, 6), (1, 3, 2)])).len(), 1, "not held");
    }
}
