//! `[archive]`: where the raw clicks are kept, and when a file is written.

use super::bound::ARCHIVE_LOCATION;
use super::error::ConfigError;
use super::section::section;

/// The rows of a file are in memory until it is written.
const FLUSH_ROWS_MAX: usize = 10_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

section! {
    #[derive(Debug)]
    ["archive"] pub struct ArchiveSection {
        /// A folder, or `s3://bucket/prefix`; empty: `archive` below the node's data folder.
        pub location: String = String::new(), in ARCHIVE_LOCATION;
        /// A file is written once it has this many rows.
        pub flush_rows: usize = 1_000_000, in 1..=FLUSH_ROWS_MAX;
        /// A file is written at the latest this long after its first row.
        pub flush_ms: u64 = 60_000, in 100..=DAY_MS;
    }
}

impl ArchiveSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()
    }
}
