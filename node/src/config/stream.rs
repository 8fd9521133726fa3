//! `[stream]`: how the shards count.

use super::error::{ConfigError, invalid};
use super::section::section;

section! {
    #[derive(Debug)]
    pub struct StreamSection {
        /// How often a shard's counts go into replicated state. A click becomes visible half of this later, on average.
        /// The cost of shorter intervals is in docs/performance.md.
        pub checkpoint_ms: u64 = 500,
    }
}

impl StreamSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(50..=60_000).contains(&self.checkpoint_ms) {
            return invalid(format!("stream.checkpoint_ms must be 50..=60000, is {}", self.checkpoint_ms));
        }
        Ok(())
    }
}
