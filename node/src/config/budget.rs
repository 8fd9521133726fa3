//! `[budget]`: when a budget check says no.

use super::section::section;

section! {
    #[derive(Debug)]
    pub struct BudgetSection {
        /// How far the counting may be behind before the budget lane pauses.
        pub counting_lag_max_ms: u64 = 10_000,
    }
}
