//! How much of the cluster is real.

use std::fmt;

use super::core;
use super::report::SeedReport;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// 0: the pure rules under a scheduler of ours, consensus as a model.
    Core,
}

impl Tier {
    /// As the command line numbers them.
    pub fn of(number: u8) -> Option<Tier> {
        (number == 0).then_some(Tier::Core)
    }

    /// Runs one seed in this process.
    pub fn run_seed(self, seed: u64) -> SeedReport {
        match self {
            Tier::Core => core::run_seed(seed),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tier::Core => f.write_str("0"),
        }
    }
}
