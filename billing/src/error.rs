//! What can go wrong between the log and an invoice, sorted by the caller's next move.

use thiserror::Error;

use crate::day::Day;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextMove {
    /// Passing: the same call may work in a moment.
    Retry,
    /// The request is wrong: repeating it will not help.
    Reject,
    /// A promise is in danger: stop this part and call somebody.
    Halt,
}

#[derive(Debug, Error)]
pub enum BillingError {
    // Retry.
    #[error("PostgreSQL: {0}")]
    Database(sqlx::Error),
    #[error("PostgreSQL at {address} cannot be reached: {detail}; start it, or correct the database URL")]
    DatabaseUnreachable { address: String, detail: String },
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    #[error(
        "the archive cannot write in {folder}: {source}; make room on that disk, or mend it. Nothing is lost meanwhile: what is not \
         archived is read again from the log, for as long as the log keeps it"
    )]
    Folder { folder: String, source: std::io::Error },
    #[error("the log: {0}")]
    Log(String),
    #[error(
        "the archive did not reach the offsets asked for within {waited_ms} ms: {missing} shards are behind; is a node with the archive role running?"
    )]
    ArchiveBehind { waited_ms: u64, missing: usize },

    // Reject.
    #[error("'{0}' is not a day: write YYYY-MM-DD, 1970-01-01 or later")]
    NotADay(String),
    #[error("'{url}' is not an archive location: {detail}; give a folder or s3://bucket/prefix")]
    StoreLocation { url: String, detail: String },
    #[error("day {0} has no batch run; run `clicktally billing run --day {0}` first")]
    NotRun(Day),
    #[error("a database URL that cannot be used: {0}")]
    DatabaseUrl(String),

    // Halt.
    #[error(
        "the schema could not be brought up to date: {0}; restore the migration table, or run the build that wrote it"
    )]
    Migration(String),
    #[error(
        "shard {shard} needs offset {expected}, and the log delivers {found}: records are lost to the archive; restore them before resuming"
    )]
    OffsetLost { shard: u16, expected: u64, found: String },
    #[error(
        "the log no longer holds the offset the archive continues from ({0}): records are lost to the archive; restore them before resuming"
    )]
    LogTruncated(String),
    #[error("the manifest did not take {file}: {detail}; two archivers wrote at once, or rows were removed")]
    ManifestRefused { file: String, detail: String },
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

impl From<sqlx::Error> for BillingError {
    fn from(error: sqlx::Error) -> BillingError {
        BillingError::Database(error)
    }
}

impl BillingError {
    pub fn next_move(&self) -> NextMove {
        use BillingError as E;
        match self {
            // A constraint that fires guards a promise; anything else of the database may pass.
            E::Database(sqlx::Error::Database(error)) if error.constraint().is_some() => NextMove::Halt,
            E::Database(_)
            | E::DatabaseUnreachable { .. }
            | E::Store(_)
            | E::Folder { .. }
            | E::Log(_)
            | E::ArchiveBehind { .. } => NextMove::Retry,
            E::NotADay(_) | E::StoreLocation { .. } | E::NotRun(_) | E::DatabaseUrl(_) => NextMove::Reject,
            E::Migration(_)
            | E::OffsetLost { .. }
            | E::LogTruncated(_)
            | E::ManifestRefused { .. }
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

/// Integers cross into PostgreSQL as `bigint`.
pub(crate) fn bigint(value: u64, what: &'static str) -> Result<i64, BillingError> {
    i64::try_from(value).map_err(|_| BillingError::Overflow(what))
}

/// What comes out of a `bigint` that a constraint keeps from being negative.
pub(crate) fn unsigned(value: i64, what: &'static str) -> Result<u64, BillingError> {
    u64::try_from(value).map_err(|_| BillingError::Overflow(what))
}
