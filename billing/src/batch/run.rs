//! One run over one day, from the manifest to the committed documents.

use clicktally_database::billing::{ManifestFile, NewRun, Stage, files_for_day};
use clicktally_database::catalog::all_terms;
use clicktally_database::{Database, Day};
use clicktally_proto::clock::Clock;
use futures::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::cell_columns::cells_of;
use super::clicks_sql::{SetAside, ShardQuery, by_shard};
use super::options::BatchOptions;
use super::totals::StagedTotals;
use super::write_results::write_results;
use crate::archive::ArchiveStore;
use crate::bill::TermsTimeline;
use crate::error::BillingError;

/// What a run computed. Clicks are distinct unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchSummary {
    pub day: Day,
    /// 1: the day's invoices; more: memos on top of finalised ones.
    pub revision: i32,
    /// The day is final, and neither its files nor its bill have changed: there is no new run.
    pub is_unchanged: bool,
    pub manifest_sha256: String,
    pub files: usize,
    pub rows_read: u64,
    pub unique_valid_clicks: u64,
    pub invalid_clicks: u64,
    /// Copies after the first.
    pub duplicates: u64,
    pub conflicts: u64,
    pub quarantined: u64,
    pub misrouted: u64,
    pub malformed: u64,
    pub billed_clicks: u64,
    /// Valid clicks that are not billed, whatever the cause.
    pub unbilled_clicks: u64,
    /// Documents written by this run, all drafts.
    pub documents: usize,
}

/// Computes a day and replaces its draft results. A rerun over the same files and terms gives the same rows; a run of a
/// finalised day writes memos of the difference, and nothing if neither its files nor its bill have changed.
///
/// The archive must be complete for the day before: see [`crate::archive::wait_until_archived`].
///
/// # Errors
/// `FileChanged` when a file is not the one in the manifest; any error leaves the earlier results as they were.
pub async fn run(
    database: &Database,
    store: &ArchiveStore,
    day: Day,
    options: &BatchOptions,
    clock: &dyn Clock,
) -> Result<BatchSummary, BillingError> {
    let files = files_for_day(database, day, options.margin_ms).await?;
    if options.verifies_files {
        verify(store, &files).await?;
    }
    let terms = TermsTimeline::new(all_terms(database).await?);
    let intervals = terms.intervals();

    let mut stage = Stage::create(database).await?;
    let mut totals = StagedTotals::default();
    let mut set_aside = SetAside::default();
    for (shard, files) in by_shard(&files) {
        let query = ShardQuery::open(store, &files, day, options).await?;
        let aside = query.set_aside().await?;
        set_aside.rows_read += aside.rows_read;
        set_aside.quarantined += aside.quarantined;
        set_aside.misrouted += aside.misrouted;
        set_aside.malformed += aside.malformed;
        let mut pieces = query.cells(&intervals).await?;
        while let Some(piece) = pieces.next().await {
            let cells = cells_of(&piece?)?;
            totals.add(&cells)?;
            stage.add(&cells).await?;
        }
        tracing::debug!(%day, shard = shard.0, files = files.len(), "computed");
    }

    let record = NewRun {
        day,
        manifest_sha256: manifest_hash(&files),
        files: files.iter().map(|file| file.file.clone()).collect(),
        rows_read: set_aside.rows_read,
        unique_valid_clicks: totals.clicks,
        invalid_clicks: totals.invalid_clicks,
        duplicates: totals.duplicates,
        conflicts: totals.conflicts,
        quarantined: set_aside.quarantined,
        misrouted: set_aside.misrouted,
        malformed: set_aside.malformed,
        computed_at_ms: clock.now_ms(),
    };
    let committed = write_results(&mut stage, &record, &terms).await?;
    if totals.conflicts > 0 {
        tracing::warn!(%day, conflicts = totals.conflicts, "copies of one click disagree; the first log offset was billed");
    }
    assert!(committed.revision >= 1, "revisions count from 1");
    let billed_clicks: u64 = committed.bill.billed.iter().map(|b| b.billed_clicks).sum();
    assert!(billed_clicks <= record.unique_valid_clicks, "only valid clicks are billed, each once");
    let summary = BatchSummary {
        day,
        revision: committed.revision,
        is_unchanged: committed.bill.is_unchanged,
        manifest_sha256: record.manifest_sha256,
        files: files.len(),
        rows_read: record.rows_read,
        unique_valid_clicks: record.unique_valid_clicks,
        invalid_clicks: record.invalid_clicks,
        duplicates: record.duplicates,
        conflicts: record.conflicts,
        quarantined: record.quarantined,
        misrouted: record.misrouted,
        malformed: record.malformed,
        billed_clicks,
        unbilled_clicks: record.unique_valid_clicks - billed_clicks,
        documents: committed.bill.documents.len(),
    };
    tracing::info!(%day, revision = summary.revision, clicks = summary.unique_valid_clicks, billed_clicks, "batch run");
    Ok(summary)
}

/// Compares every file with the hash that the manifest recorded.
async fn verify(store: &ArchiveStore, files: &[ManifestFile]) -> Result<(), BillingError> {
    for file in files {
        let found = store.sha256(&file.file).await?;
        if found != file.sha256 {
            return Err(BillingError::FileChanged { file: file.file.clone(), expected: file.sha256.clone(), found });
        }
    }
    Ok(())
}

/// SHA-256 over the lines `file sha256\n`, in order of shard and offset.
fn manifest_hash(files: &[ManifestFile]) -> String {
    assert!(
        files.is_sorted_by_key(|file| (file.shard, file.offset_from)),
        "the hash names the same files in the same order at every run"
    );
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(format!("{} {}\n", file.file, file.sha256));
    }
    hex::encode(hasher.finalize())
}
