//! `[budget]`: when a budget check says no.

use super::error::ConfigError;
use super::section::section;

section! {
    #[derive(Debug)]
    ["budget"] pub struct BudgetSection {
        /// How far the counting may be behind the log's clock before the budget lane pauses.
        pub counting_lag_max_ms: u64 = 10_000, in 1_000..=600_000;
    }
}

impl BudgetSection {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_keys()
    }
}
