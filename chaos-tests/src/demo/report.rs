//! `target/demo/report.json`: its names and types are a public contract.

use std::path::Path;

use clicktally_node::tools::load::LoadSummary;
use serde::Serialize;

use super::verdict::Verdict;
use crate::report_file::write_json;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub sent: u64,
    /// Distinct valid clicks.
    pub unique: u64,
    pub counted: u64,
    pub late: u64,
    pub archived: u64,
    pub invoiced_clicks: u64,
    pub unexplained: u64,
    pub killed: Option<Killed>,
    pub dashboard: String,
}

/// The node that was killed while clicks arrived.
#[derive(Debug, Clone, Serialize)]
pub struct Killed {
    pub node: u64,
    pub was_leader: bool,
    /// How many shards it owned.
    pub shards: usize,
    /// From the kill until every shard had a living owner that had counted further.
    pub recovered_ms: u64,
}

impl Report {
    pub(super) fn new(summary: &LoadSummary, verdict: &Verdict, killed: Option<Killed>, dashboard: String) -> Report {
        Report {
            sent: summary.sent,
            unique: summary.unique_valid,
            counted: verdict.counted,
            late: verdict.late,
            archived: verdict.archived,
            invoiced_clicks: verdict.invoiced_clicks,
            unexplained: verdict.unexplained,
            killed,
            dashboard,
        }
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }
}
