//! `[archive]`: where the raw clicks are kept, and when a file is written.

use super::section::section;

section! {
    #[derive(Debug)]
    pub struct ArchiveSection {
        /// A folder, or `s3://bucket/prefix`; empty: `archive` below the node's data folder.
        pub location: String = String::new(),
        /// A file is written once it has this many rows.
        pub flush_rows: usize = 1_000_000,
        /// A file is written at the latest this long after its first row.
        pub flush_ms: u64 = 60_000,
    }
}
