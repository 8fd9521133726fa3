//! CT-4: the revision of a row in PostgreSQL never goes back, and a final row never changes.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::database::AdMinute;

/// Watches successive readings of `reports.ad_minute`.
#[derive(Debug, Default)]
pub struct RevisionsRise {
    rows: BTreeMap<(i64, i64, i64), AdMinute>,
    violations: Vec<Violation>,
}

impl RevisionsRise {
    pub fn observe(&mut self, rows: Vec<AdMinute>) {
        for row in rows {
            let key = (row.minute, row.ad_id, row.campaign_id);
            if let Some(before) = self.rows.get(&key) {
                let changed = *before != row;
                if row.revision < before.revision
                    || (changed && (before.state == "final" || row.revision == before.revision))
                {
                    let detail = format!("{before:?} became {row:?}");
                    self.violations.push(Violation { invariant: Invariant::PublishedRows, detail });
                }
            }
            self.rows.insert(key, row);
        }
    }

    /// The database was restored to an older state: these rows are the current ones from now on.
    pub fn restored(&mut self, rows: Vec<AdMinute>) {
        let key = |row: &AdMinute| (row.minute, row.ad_id, row.campaign_id);
        self.rows = rows.into_iter().map(|row| (key(&row), row)).collect();
    }

    /// The violations found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn finish(self) -> Vec<Violation> {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revision: i64, clicks: i64, state: &str) -> AdMinute {
        AdMinute { clicks, revision, state: state.to_owned(), ..AdMinute::default() }
    }

    #[test]
    fn going_back_and_changing_what_is_final_are_seen() {
        let mut rise = RevisionsRise::default();
        for seen in [row(5, 1, "fired"), row(6, 2, "corrected"), row(6, 2, "corrected"), row(7, 2, "final")] {
            rise.observe(vec![seen]);
        }
        assert!(rise.violations.is_empty());
        rise.observe(vec![row(8, 3, "final")]);
        rise.observe(vec![row(7, 3, "final")]);
        assert_eq!(rise.finish().len(), 2);
    }
}
