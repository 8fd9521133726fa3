//! What became of the rows of a playback.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Faulty rows of one kind that are also named in the log of the program. The totals and `--skipped` have the rest.
const NAMED_ROWS_MAX: u64 = 10;

/// Rows that were not played for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowGroup {
    pub reason: String,
    pub rows: u64,
    /// True if a row of this kind should perhaps have been played.
    pub is_fault: bool,
    pub first_line: u64,
    /// Why the first of them was not played.
    pub example: String,
}

/// Every row is in exactly one of `played`, `skipped`, `refused` and `unacknowledged`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PlaybackTotals {
    pub rows: u64,
    /// Acknowledged. Some are repeats or robots, and will not be counted.
    pub played: u64,
    /// Played as the campaign of `--campaign-id`.
    pub played_without_campaign: u64,
    /// Played without what stood in the place of an address, such as a host name.
    pub played_without_address: u64,
    pub skipped: Vec<RowGroup>,
    /// By the server.
    pub refused: Vec<RowGroup>,
    /// Sent when the play broke off; the product may have some of them.
    pub unacknowledged: u64,
    /// The event time of the first row. A rerun with the same one repeats the same event times.
    pub anchor_ms: u64,
    /// Why the play broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl PlaybackTotals {
    /// What was asked for and did not happen; `None` if all of it did.
    pub fn shortfall(&self) -> Option<String> {
        let faulty: u64 = self.skipped.iter().filter(|group| group.is_fault).map(|group| group.rows).sum();
        let refused: u64 = self.refused.iter().map(|group| group.rows).sum();
        if let Some(failure) = &self.failure {
            let finish = format!("to finish it, repeat the command with --anchor-ms {}", self.anchor_ms);
            return Some(format!("the play broke off after {} rows: {failure}; {finish}", self.rows));
        }
        if faulty + refused > 0 {
            let named = "--skipped FILE lists each of them";
            return Some(format!("{faulty} faulty rows were not played, and the server refused {refused}; {named}"));
        }
        (self.played == 0).then(|| "no row of the file is a click: check --columns and --where".to_owned())
    }
}

/// Collects the totals row by row.
pub(super) struct Ledger {
    totals: PlaybackTotals,
    skipped: BTreeMap<String, RowGroup>,
    refused: BTreeMap<String, RowGroup>,
    list: Option<BufWriter<std::fs::File>>,
}

/// One line of `--skipped`.
#[derive(Serialize)]
struct ListedRow<'a> {
    line: u64,
    reason: &'a str,
    detail: &'a str,
}

impl Ledger {
    pub(super) fn new(anchor_ms: u64, list: Option<&Path>) -> anyhow::Result<Ledger> {
        let create = |path: &Path| {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(BufWriter::new(file))
        };
        Ok(Ledger {
            totals: PlaybackTotals { anchor_ms, ..PlaybackTotals::default() },
            skipped: BTreeMap::new(),
            refused: BTreeMap::new(),
            list: list.map(create).transpose()?,
        })
    }

    pub(super) fn read_row(&mut self) {
        self.totals.rows += 1;
    }

    pub(super) fn played(&mut self, names_campaign: bool, is_address_left_out: bool) {
        self.totals.played += 1;
        self.totals.played_without_campaign += u64::from(!names_campaign);
        self.totals.played_without_address += u64::from(is_address_left_out);
    }

    pub(super) fn skip(&mut self, line: u64, reason: &str, detail: &str, is_fault: bool) -> anyhow::Result<()> {
        Self::add(&mut self.skipped, line, reason, detail, is_fault);
        self.list(line, reason, detail)
    }

    pub(super) fn refuse(&mut self, line: u64, reason: &str, detail: &str) -> anyhow::Result<()> {
        Self::add(&mut self.refused, line, reason, detail, true);
        self.list(line, &format!("refused by the server: {reason}"), detail)
    }

    fn add(groups: &mut BTreeMap<String, RowGroup>, line: u64, reason: &str, detail: &str, is_fault: bool) {
        let group = groups.entry(reason.to_owned()).or_insert_with(|| RowGroup {
            reason: reason.to_owned(),
            rows: 0,
            is_fault,
            first_line: line,
            example: detail.to_owned(),
        });
        group.rows += 1;
        match group.rows {
            1..=NAMED_ROWS_MAX if is_fault => tracing::warn!("line {line} is not played: {detail}"),
            rows if is_fault && rows == NAMED_ROWS_MAX + 1 => {
                tracing::warn!("further rows with '{reason}' are counted only; --skipped FILE lists them");
            }
            _ => {}
        }
    }

    fn list(&mut self, line: u64, reason: &str, detail: &str) -> anyhow::Result<()> {
        let Some(list) = &mut self.list else { return Ok(()) };
        serde_json::to_writer(&mut *list, &ListedRow { line, reason, detail })?;
        list.write_all(b"\n").context("cannot write the list of skipped rows")
    }

    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        self.totals.failure = Some(format!("{error:#}"));
    }

    /// For a door that acknowledges later than it takes: the last of the rows it took are not acknowledged.
    pub(super) fn take_back(&mut self, acknowledged: u64) {
        self.totals.played = self.totals.played.min(acknowledged);
    }

    pub(super) fn finish(mut self) -> anyhow::Result<PlaybackTotals> {
        if let Some(list) = &mut self.list {
            list.flush().context("cannot write the list of skipped rows")?;
        }
        let mut totals = self.totals;
        totals.skipped = self.skipped.into_values().collect();
        totals.refused = self.refused.into_values().collect();
        let named: u64 = totals.skipped.iter().chain(&totals.refused).map(|group| group.rows).sum();
        totals.unacknowledged = totals.rows - totals.played - named;
        assert!(
            totals.unacknowledged == 0 || totals.failure.is_some(),
            "every row of a whole play is played or named: {totals:?}"
        );
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_name_each_kind_once_with_its_first_line_and_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("skipped.jsonl");
        let mut ledger = Ledger::new(7, Some(&path)).unwrap();
        for _ in 0..5 {
            ledger.read_row();
        }
        ledger.played(true, false);
        ledger.played(false, true);
        ledger.skip(3, "ad_id missing", "ad_id is missing", true).unwrap();
        ledger.skip(4, "ad_id missing", "ad_id is missing", true).unwrap();
        ledger.refuse(5, "click-field-invalid", "no").unwrap();
        let totals = ledger.finish().unwrap();
        assert_eq!((totals.rows, totals.played, totals.unacknowledged), (5, 2, 0));
        assert_eq!((totals.played_without_campaign, totals.played_without_address), (1, 1));
        assert_eq!((totals.skipped[0].rows, totals.skipped[0].first_line), (2, 3));
        assert_eq!(totals.refused[0].first_line, 5);
        let listed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(listed.lines().count(), 3);
        assert_eq!(listed.lines().next(), Some(r#"{"line":3,"reason":"ad_id missing","detail":"ad_id is missing"}"#));
    }

    #[test]
    fn a_play_is_whole_only_without_faults_refusals_and_failures_and_with_a_click() {
        let group = |is_fault| RowGroup { reason: "x".into(), rows: 1, is_fault, first_line: 1, example: "x".into() };
        let whole = PlaybackTotals { played: 1, skipped: vec![group(false)], ..PlaybackTotals::default() };
        assert_eq!(whole.shortfall(), None);
        let with = |change: &dyn Fn(&mut PlaybackTotals)| {
            let mut totals = whole.clone();
            change(&mut totals);
            totals.shortfall()
        };
        assert!(with(&|totals| totals.played = 0).is_some());
        assert!(with(&|totals| totals.skipped.push(group(true))).is_some());
        assert!(with(&|totals| totals.refused.push(group(true))).is_some());
        assert!(with(&|totals| totals.failure = Some("gone".into())).unwrap().contains("--anchor-ms 0"));
    }
}
