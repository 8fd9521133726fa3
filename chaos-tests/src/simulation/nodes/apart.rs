//! A seed in a process of its own: a process has one world, and what it has drawn before would be part of the story.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::simulation::report::SeedReport;

/// What `program` has to be called with, before the seed, to answer with the report of [`super::run_seed`] as JSON.
pub const ONE_SEED: &str = "one";

/// Runs a seed by the simulator `program`, with whatever mutant this process was told to plant.
///
/// # Errors
/// The process cannot be run, or did not come to a report.
pub fn run_seed_apart(program: &Path, seed: u64) -> anyhow::Result<SeedReport> {
    let output = Command::new(program)
        .args([ONE_SEED, &seed.to_string()])
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "seed {seed}: the simulator ended with {}: {complaint}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("seed {seed}: no report: {complaint}"))
}
