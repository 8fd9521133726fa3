//! The archive: every record of the raw log, as Parquet in an object store, named by a manifest in PostgreSQL.
//!
//! Reads: the raw topic, each partition from the offset its manifest ends at. Writes: files, then manifest rows.
//! Promises: the manifest's ranges of a shard follow each other from offset 0 without gap or overlap, and each file has
//! all readable records of its range. A file is durable before its row is. A record that cannot be decoded is archived
//! as its bytes. On restart: reads on from the manifest. A file without a row is an orphan that no query reads; it is
//! overwritten or left.

mod archiver;
mod buffer;
mod fetcher;
mod offsets;
mod parquet_file;
mod store;

pub use archiver::{ArchiveOptions, Archiver};
pub use offsets::{log_end_offsets, show_lag, wait_until_archived};
pub use parquet_file::schema;
pub use store::ArchiveStore;
