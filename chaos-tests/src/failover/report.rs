//! The figures of a failover bench: a table for people, JSON for programs.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

/// Milliseconds throughout.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverReport {
    pub groups: u16,
    pub kinds: Vec<KindReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct KindReport {
    pub kind: &'static str,
    pub min_ms: u128,
    pub median_ms: u128,
    pub max_ms: u128,
    pub runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub victim: u64,
    /// How many it owned.
    pub shards: usize,
    /// The same measurement just before, with nothing wrong.
    pub undisturbed_ms: u128,
    /// From the signal until a click of every shard, sent after it, was counted.
    pub recovered_ms: u128,
}

impl KindReport {
    pub(super) fn new(kind: &'static str, runs: Vec<Run>) -> anyhow::Result<KindReport> {
        let mut sorted: Vec<u128> = runs.iter().map(|run| run.recovered_ms).collect();
        sorted.sort_unstable();
        let (min, max) = sorted.first().zip(sorted.last()).context("there was no run")?;
        // Of an even number of runs the slower of the two in the middle.
        Ok(KindReport { kind, min_ms: *min, median_ms: sorted[sorted.len() / 2], max_ms: *max, runs })
    }
}

impl FailoverReport {
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.set_header(["what happens to the leader", "runs", "min ms", "median ms", "max ms", "undisturbed ms"]);
        for kind in &self.kinds {
            let mut undisturbed: Vec<u128> = kind.runs.iter().map(|run| run.undisturbed_ms).collect();
            undisturbed.sort_unstable();
            let figures = [kind.min_ms, kind.median_ms, kind.max_ms, undisturbed[undisturbed.len() / 2]];
            let cells = [kind.kind.to_owned(), kind.runs.len().to_string()].into_iter();
            table.add_row(cells.chain(figures.map(|figure| figure.to_string())));
        }
        format!("{} group(s), three nodes, product defaults\n{table}", self.groups)
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            Ok(std::fs::write(path, text)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_slower_of_the_two_in_the_middle() {
        let run = |recovered_ms| Run { victim: 1, shards: 5, undisturbed_ms: 1, recovered_ms };
        let report = KindReport::new("kill -9", [9, 3, 7, 5].map(run).to_vec()).unwrap();
        assert_eq!((report.min_ms, report.median_ms, report.max_ms), (3, 7, 9));
        assert!(KindReport::new("kill -9", Vec::new()).is_err());
    }
}
