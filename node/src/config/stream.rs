//! `[stream]`: how the shards count.

use super::error::ConfigError;
use super::section::section;

section! {
    #[derive(Debug)]
    ["stream"] pub struct StreamSection {
        /// How often a shard's counts go into replicated state. A click becomes visible half of this later, on average.
        /// The cost of shorter intervals is in docs/performance.md.
        pub checkpoint_ms: u64 = 500, in 50..=60_000;
    }
}

impl StreamSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()
    }
}
