//! What can go wrong between the log and an invoice, sorted by the caller's next move.

use clicktally_database::{DatabaseError, Day, NotADay};
use clicktally_proto::click_log::LogError;
use clicktally_proto::next_move::NextMove;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum BillingError {
    /// Knows its own next move.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the archive cannot read the log: {0}")]
    Log(#[from] LogError),

    // Retry.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    #[error(
        "the archive cannot write in {folder}: {source}; make room on that disk, or mend it. Nothing is lost meanwhile: what is not \
         archived is read again from the log, for as long as the log keeps it"
    )]
    Folder { folder: String, source: std::io::Error },
    #[error(
        "the archive did not reach the offsets asked for within {waited_ms} ms: {missing} shards are behind; is a node with the archive role running?"
    )]
    ArchiveBehind { waited_ms: u64, missing: usize },
    #[error(
        "PostgreSQL did not get all changes of terms within {waited_ms} ms ({}); is a node with the serve role running, and \
         does its /readyz name a halted catalogue writer?",
        behind_ms.map_or_else(|| "a group has reported none yet".to_owned(), |ms| format!("they are {ms} ms behind"))
    )]
    TermsBehind { waited_ms: u64, behind_ms: Option<u64> },

    // Reject.
    #[error(transparent)]
    NotADay(#[from] NotADay),
    #[error("'{url}' is not an archive location: {detail}; give a folder or s3://bucket/prefix")]
    StoreLocation { url: String, detail: String },
    #[error(
        "PostgreSQL has the terms of {found} groups, and [cluster] groups is {configured}: use the configuration file of a \
         node of this cluster"
    )]
    OtherGroups { configured: u16, found: usize },
    #[error("the groups count by different event_time.max_ahead_ms: {0:?}; configure every node alike")]
    RulesDiffer(Vec<u64>),
    #[error("day {0} has no batch run; run `clicktally billing run --day {0}` first")]
    NotRun(Day),
    #[error("day {day} is not finalised: {reasons}; to finalise it all the same: --override --by WHO --reason TEXT")]
    NotReady { day: Day, reasons: String },

    // Halt.
    #[error("the archive has read shard {shard} up to offset {due}, and its reader delivers offset {found} again")]
    OffsetRepeated { shard: u16, due: u64, found: u64 },
    #[error("archive file {file} is not the one in the manifest (sha256 {found}, not {expected}); restore it")]
    FileChanged { file: String, expected: String, found: String },
    #[error("a record could not be written as Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("a record could not be laid out in columns: {0}")]
    Columns(#[from] arrow::error::ArrowError),
    #[error("the batch query failed: {0}")]
    Query(#[from] datafusion::error::DataFusionError),
    #[error("an amount or a count overflows: {0}")]
    Overflow(&'static str),
    #[error("limit reached: {0}")]
    Limit(String),
    #[error(
        "revision {revision} of campaign {campaign_id} does not say what it said when it was billed; restore it, and add a new revision for new terms"
    )]
    TermsRewritten { campaign_id: i64, revision: i64 },
    #[error("a worker thread ended early: {0}")]
    Worker(String),
}

impl BillingError {
    pub fn next_move(&self) -> NextMove {
        use BillingError as E;
        match self {
            E::Database(error) => error.next_move(),
            E::Log(error) => error.next_move(),
            E::Store(error) => next_move_of_store(error),
            E::Folder { .. } | E::ArchiveBehind { .. } | E::TermsBehind { .. } => NextMove::Retry,
            E::OtherGroups { .. } | E::RulesDiffer(_) => NextMove::Reject,
            E::NotADay(_) | E::StoreLocation { .. } | E::NotRun(_) | E::NotReady { .. } => NextMove::Reject,
            E::OffsetRepeated { .. }
            | E::FileChanged { .. }
            | E::Parquet(_)
            | E::Columns(_)
            | E::Query(_)
            | E::Overflow(_)
            | E::Limit(_)
            | E::TermsRewritten { .. }
            | E::Worker(_) => NextMove::Halt,
        }
    }
}

/// The client has retried what passes already; what names the request or the credentials does not pass.
fn next_move_of_store(error: &object_store::Error) -> NextMove {
    use object_store::Error as E;
    match error {
        E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::UnknownConfigurationKey { .. }
        | E::InvalidPath { .. } => NextMove::Reject,
        // A file of the manifest is gone.
        E::NotFound { .. } => NextMove::Halt,
        _ => NextMove::Retry,
    }
}

/// Integers cross into PostgreSQL as `bigint`.
pub(crate) fn bigint(value: u64, what: &'static str) -> Result<i64, BillingError> {
    i64::try_from(value).map_err(|_| BillingError::Overflow(what))
}

/// A query of the batch counts in `bigint` and never below zero.
pub(crate) fn unsigned(value: i64, what: &'static str) -> Result<u64, BillingError> {
    u64::try_from(value).map_err(|_| BillingError::Overflow(what))
}
