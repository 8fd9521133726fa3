//! What a batch run is told besides its day.

use clicktally_proto::event_time::EventTimeRules;

#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// Files with event times this close to the day are read too: a copy of a click whose event time was changed on
    /// the way still meets the first one if both lie within it.
    pub margin_ms: u64,
    /// Memory of one shard's query; sorting beyond it goes to disk.
    pub memory_bytes_max: usize,
    /// Compare every file with its hash in the manifest before reading it. Costs one more read.
    pub verifies_files: bool,
    /// A click that is dated further ahead of its arrival is not billed. This must be the bound of the stream:
    /// [`super::wait_until_terms_exported`] tells it.
    pub max_ahead_ms: u64,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            margin_ms: 60 * 60_000,
            memory_bytes_max: 512 << 20,
            verifies_files: true,
            max_ahead_ms: EventTimeRules::default().max_ahead_ms,
        }
    }
}
