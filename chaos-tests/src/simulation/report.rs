//! The result of one story.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::edition::Edition;
use crate::checks;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedReport {
    pub seed: u64,
    pub edition: Edition,
    /// The size of the cluster, in tier 1, which draws it.
    pub shape: String,
    /// The hash of every line of the trace.
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub simulated_ms: u64,
    /// Clicks in the raw log, repeats included.
    pub clicks: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<String, u64>,
    /// How many commands of each kind were committed; tier 0 alone counts them.
    pub commands: BTreeMap<String, u64>,
    /// The command levels of the builds that nodes were started with; tier 1 alone has several.
    pub levels: BTreeSet<u16>,
    /// The first violation. The run ends there.
    pub violation: Option<Finding>,
}

/// What ends a run early.
#[derive(Debug, Clone)]
pub enum Breach {
    Invariant(checks::Violation),
    /// An assert of the product fired. The message is that of the panic.
    Panic(String),
}

impl From<checks::Violation> for Breach {
    fn from(violation: checks::Violation) -> Breach {
        Breach::Invariant(violation)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `CT-n`, or `panic` for an assert of the product.
    pub check: String,
    pub message: String,
    pub trace_tail: Vec<String>,
}

impl Finding {
    pub fn of(breach: Breach, trace_tail: Vec<String>) -> Finding {
        let (check, message) = match breach {
            Breach::Invariant(violation) => (violation.invariant.to_string(), violation.detail),
            Breach::Panic(message) => ("panic".to_owned(), message),
        };
        Finding { check, message, trace_tail }
    }
}

impl SeedReport {
    pub fn fault(&mut self, kind: &str) {
        count(&mut self.faults, kind);
    }

    pub fn command(&mut self, name: &str) {
        count(&mut self.commands, name);
    }

    pub fn faults_injected(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// Allocates for the first of a kind only.
fn count(times_by_kind: &mut BTreeMap<String, u64>, kind: &str) {
    match times_by_kind.get_mut(kind) {
        Some(times) => *times += 1,
        None => drop(times_by_kind.insert(kind.to_owned(), 1)),
    }
}
