//! A story in a process of its own, because a process has one world and its earlier draws would be part of the story.

use std::path::Path;
use std::process::Command;

use crate::simulation::edition::Story;
use crate::simulation::report::{Finding, SeedReport};

/// The argument of the simulator, before the seed, that makes it print the report of [`super::run_story`] as JSON.
pub const ONE_SEED: &str = "one";

/// The last lines of a panicking process that a report shows.
const COMPLAINT_LINES_MAX: usize = 20;

/// Runs a story by the program `simulator`, with the mutant that this process was told to plant, if any. A process
/// without a report has panicked, which is a finding with a seed like any other.
pub fn run_story_apart(simulator: &Path, story: Story) -> SeedReport {
    let (seed, edition) = (story.seed.0.to_string(), story.edition.to_string());
    let output = match Command::new(simulator).args([ONE_SEED, &seed, "--edition", &edition]).output() {
        Ok(output) => output,
        Err(error) => return panicked(story, format!("cannot run {}: {error}", simulator.display()), ""),
    };
    match serde_json::from_slice(&output.stdout) {
        Ok(report) if output.status.success() => report,
        _ => panicked(
            story,
            format!("the process ended with {}", output.status),
            &String::from_utf8_lossy(&output.stderr),
        ),
    }
}

fn panicked(story: Story, message: String, complaint: &str) -> SeedReport {
    let lines: Vec<&str> = complaint.lines().collect();
    let trace_tail = lines[lines.len().saturating_sub(COMPLAINT_LINES_MAX)..].iter().map(|&line| line.to_owned());
    let violation = Finding { check: "panic".to_owned(), message, trace_tail: trace_tail.collect() };
    SeedReport { seed: story.seed.0, edition: story.edition, violation: Some(violation), ..SeedReport::default() }
}
