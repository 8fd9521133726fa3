//! Whole nodes in a simulation, as `sim_nodes` runs them: a few seeds, each in a process of its own.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;

use clicktally_chaos_tests::simulation::nodes::run_seed_apart;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=6;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim_nodes"))
}

#[test]
fn a_seed_tells_the_same_story_in_every_process() {
    let mut stories = std::collections::BTreeSet::new();
    for seed in SEEDS {
        let (first, second) = (run_seed_apart(program(), seed).unwrap(), run_seed_apart(program(), seed).unwrap());
        assert_eq!(first, second);
        assert!(first.trace_lines > 0 && first.clicks > 0 && first.faults_injected() > 0, "{first:?}");
        assert_eq!(first.violation, None, "seed {seed}");
        stories.insert(first.trace_hash);
    }
    assert_eq!(stories.len() as u64, SEEDS.end() - SEEDS.start() + 1, "different seeds tell different stories");
}
