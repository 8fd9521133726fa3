//! The figures of a failover bench: a table for people, JSON for programs.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

use crate::report_file::write_json;

/// All times are milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverReport {
    pub groups: u16,
    pub kinds: Vec<KindReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct KindReport {
    pub kind: &'static str,
    /// The spread of `recovered_ms`.
    pub all: Spread,
    /// The spread of `moved_ms`.
    pub moved: Spread,
    /// The spread of `undisturbed_ms`.
    pub undisturbed: Spread,
    pub runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    pub min_ms: u128,
    /// For an even number of runs, the slower of the two in the middle.
    pub median_ms: u128,
    pub max_ms: u128,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub victim: u64,
    /// The number of shards it owned.
    pub shards: usize,
    /// The same measurement just before, without a fault.
    pub undisturbed_ms: u128,
    /// From the signal until every shard that the victim owned had counted a click sent after it.
    pub moved_ms: u128,
    /// From the signal until every shard had counted a click sent after it.
    pub recovered_ms: u128,
}

impl KindReport {
    pub(super) fn new(kind: &'static str, runs: Vec<Run>) -> anyhow::Result<KindReport> {
        let spread = |figure: fn(&Run) -> u128| Spread::of(runs.iter().map(figure).collect());
        let all = spread(|run| run.recovered_ms)?;
        let (moved, undisturbed) = (spread(|run| run.moved_ms)?, spread(|run| run.undisturbed_ms)?);
        Ok(KindReport { kind, all, moved, undisturbed, runs })
    }
}

impl Spread {
    fn of(mut figures: Vec<u128>) -> anyhow::Result<Spread> {
        figures.sort_unstable();
        let (min_ms, max_ms) = figures.first().copied().zip(figures.last().copied()).context("there was no run")?;
        Ok(Spread { min_ms, median_ms: figures[figures.len() / 2], max_ms })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {} / {}", self.min_ms, self.median_ms, self.max_ms)
    }
}

impl FailoverReport {
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.set_header(["what happens to the leader", "runs", "its shards", "all shards", "undisturbed"]);
        for KindReport { kind, all, moved, undisturbed, runs } in &self.kinds {
            table.add_row([
                *kind,
                &runs.len().to_string(),
                &moved.to_string(),
                &all.to_string(),
                &undisturbed.to_string(),
            ]);
        }
        let groups = self.groups;
        format!("{groups} group(s), three nodes, product defaults; milliseconds: min / median / max\n{table}")
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_slower_of_the_two_in_the_middle() {
        let run = |recovered_ms| Run { victim: 1, shards: 5, undisturbed_ms: 1, moved_ms: 2, recovered_ms };
        let report = KindReport::new("kill -9", [9, 3, 7, 5].map(run).to_vec()).unwrap();
        assert_eq!(report.all, Spread { min_ms: 3, median_ms: 7, max_ms: 9 });
        assert_eq!(report.moved.max_ms, 2);
        assert!(KindReport::new("kill -9", Vec::new()).is_err());
    }
}
