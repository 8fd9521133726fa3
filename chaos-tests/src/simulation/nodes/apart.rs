//! A seed in a process of its own: a process has one world, and what it has drawn before would be part of the story.

use std::path::Path;
use std::process::Command;

use crate::simulation::report::{SeedReport, Violation};

/// What the simulator has to be called with, before the seed, to answer with the report of [`super::run_seed`] as JSON.
pub const ONE_SEED: &str = "one";

/// Lines of what a dying process said that are worth showing.
const COMPLAINT_LINES_MAX: usize = 20;

/// Runs a seed by the program `simulator`, with whatever mutant this process was told to plant. A process that does not come to a
/// report has panicked, which is a finding with a seed like any other.
pub fn run_seed_apart(simulator: &Path, seed: u64) -> SeedReport {
    let output = match Command::new(simulator).args([ONE_SEED, &seed.to_string()]).output() {
        Ok(output) => output,
        Err(error) => return panicked(seed, format!("cannot run {}: {error}", simulator.display()), ""),
    };
    match serde_json::from_slice(&output.stdout) {
        Ok(report) if output.status.success() => report,
        _ => panicked(
            seed,
            format!("the process ended with {}", output.status),
            &String::from_utf8_lossy(&output.stderr),
        ),
    }
}

fn panicked(seed: u64, message: String, complaint: &str) -> SeedReport {
    let lines: Vec<&str> = complaint.lines().collect();
    let trace_tail = lines[lines.len().saturating_sub(COMPLAINT_LINES_MAX)..].iter().map(|&line| line.to_owned());
    let violation = Violation { check: "panic".to_owned(), message, trace_tail: trace_tail.collect() };
    SeedReport { seed, violation: Some(violation), ..SeedReport::default() }
}
