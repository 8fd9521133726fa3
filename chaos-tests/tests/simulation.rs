//! A small budget of fresh seeds of both tiers, the seeds that failed once, and some mistakes that must be found.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clicktally_chaos_tests::simulation::campaign::{Campaign, explain};
use clicktally_chaos_tests::simulation::mutants::{Hunt, seeds_max};
use clicktally_chaos_tests::simulation::tier::Tier;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::fault::Mutant;

const FRESH_SEEDS: u64 = 200;
/// Of whole nodes, which take a second each.
const FRESH_SEEDS_OF_NODES: u64 = 20;
/// Each broke an invariant once, by a mistake of the product or of a check; docs/simulation.md has the stories.
const FAILED_ONCE: [(Tier, u64); 10] = [
    (Tier::Core, 88),
    (Tier::Core, 7_304),
    (Tier::Core, 22_454),
    (Tier::Core, 22_909),
    (Tier::Nodes, 23),
    (Tier::Nodes, 28),
    (Tier::Nodes, 48),
    (Tier::Nodes, 149),
    (Tier::Nodes, 1_795_558_578_533),
    (Tier::Nodes, 1_795_761_907_707),
];
const SEEDS_TIME: Duration = Duration::from_secs(60);

fn simulator() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim"))
}

#[allow(clippy::print_stdout)] // Says where the seeds begin, for whoever wants them again.
fn assert_seeds_keep_every_invariant(tier: Tier, first_seed: u64, seeds: u64) {
    println!("{seeds} seeds of tier {tier} from {first_seed}");
    let campaign =
        Campaign { tier, simulator: simulator().to_owned(), first_seed, seeds, time_max: Some(SEEDS_TIME), threads: 2 };
    let report = campaign.run(&|_| {});
    println!("{}", report.summary());
    assert!(report.failed.is_none(), "{}", explain(&report.failed.unwrap(), tier));
}

#[test]
fn fresh_seeds_of_the_rules_keep_every_invariant() {
    assert_seeds_keep_every_invariant(Tier::Core, SystemClock.now_ms(), FRESH_SEEDS);
}

#[test]
fn fresh_seeds_of_whole_nodes_keep_every_invariant() {
    assert_seeds_keep_every_invariant(Tier::Nodes, SystemClock.now_ms(), FRESH_SEEDS_OF_NODES);
}

#[test]
fn seeds_that_failed_once_keep_every_invariant() {
    for (tier, seed) in FAILED_ONCE {
        assert_seeds_keep_every_invariant(tier, seed, 1);
    }
}

#[test]
fn a_seed_tells_the_same_story_twice_and_another_seed_another() {
    for tier in [Tier::Core, Tier::Nodes] {
        let mut stories = BTreeSet::new();
        for seed in 1..=3 {
            let report = tier.run_seed(seed, simulator());
            assert_eq!(report, tier.run_seed(seed, simulator()));
            assert_eq!(report.violation, None);
            assert!(report.trace_lines > 0 && report.clicks > 0 && report.faults_injected() > 0, "{report:?}");
            stories.insert(report.trace_hash);
        }
        assert_eq!(stories.len(), 3);
    }
}

#[test]
fn planted_mistakes_are_found() {
    let mutants = [
        Mutant::Offset,
        Mutant::WatermarkByTimer,
        Mutant::UpsertUnversioned,
        Mutant::LostTailProves,
        Mutant::AckBeforeFsync,
        Mutant::StaleRead,
    ];
    for mutant in mutants {
        let hunt = Hunt::run(mutant, simulator()).unwrap();
        assert!(hunt.killed.is_some(), "{} survived {} seeds", mutant.name(), seeds_max(mutant));
    }
}
