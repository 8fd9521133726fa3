//! How much of the cluster is real, and how much a model.

use std::fmt;
use std::path::Path;

use super::edition::Story;
use super::report::SeedReport;
use super::{billing, core, nodes};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// 0: the pure rules under the simulation's own scheduler, with a model of consensus.
    Core,
    /// 1: whole nodes on simulated hosts, with real consensus.
    Nodes,
    /// 2: the rules of what is owed, over days.
    Billing,
}

impl Tier {
    /// By its number on the command line.
    pub fn of(number: u8) -> Option<Tier> {
        match number {
            0 => Some(Tier::Core),
            1 => Some(Tier::Nodes),
            2 => Some(Tier::Billing),
            _ => None,
        }
    }

    /// Runs one story. `simulator` is the program `sim`, for the tier whose stories need a process each.
    pub fn run_story(self, story: Story, simulator: &Path) -> SeedReport {
        match self {
            Tier::Core => core::run_story(story),
            Tier::Nodes => nodes::run_story_apart(simulator, story),
            Tier::Billing => billing::run_story(story),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tier::Core => f.write_str("0"),
            Tier::Nodes => f.write_str("1"),
            Tier::Billing => f.write_str("2"),
        }
    }
}
