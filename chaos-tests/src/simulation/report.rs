//! What became of one seed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checks;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedReport {
    pub seed: u64,
    /// Of the cluster, where that is drawn as well.
    pub shape: String,
    /// Of every line of the trace.
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub simulated_ms: u64,
    /// In the raw log, repeats included.
    pub clicks: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<String, u64>,
    /// The first one; the run ends there.
    pub violation: Option<Violation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// `CT-n`, or `panic` where an assert of the product itself fired.
    pub check: String,
    pub message: String,
    pub trace_tail: Vec<String>,
}

impl Violation {
    pub fn of(breach: &checks::Violation, trace_tail: Vec<String>) -> Violation {
        Violation { check: breach.invariant.to_owned(), message: breach.detail.clone(), trace_tail }
    }
}

impl SeedReport {
    pub fn fault(&mut self, kind: &str) {
        match self.faults.get_mut(kind) {
            Some(times) => *times += 1,
            None => drop(self.faults.insert(kind.to_owned(), 1)),
        }
    }

    pub fn faults_injected(&self) -> u64 {
        self.faults.values().sum()
    }
}
