//! A small budget of fresh seeds, the seeds that once failed, and four mistakes that must be found.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::time::Duration;

use clicktally_chaos_tests::simulation::campaign::{Campaign, explain};
use clicktally_chaos_tests::simulation::mutants::CASES;
use clicktally_chaos_tests::simulation::tier::Tier;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::fault::Mutant;

const FRESH_SEEDS: u64 = 200;
const FRESH_SEEDS_TIME: Duration = Duration::from_secs(60);

#[test]
#[allow(clippy::print_stdout)] // Says where the seeds begin, for whoever wants them again.
fn fresh_seeds_keep_every_invariant() {
    let first_seed = SystemClock.now_ms();
    println!("{FRESH_SEEDS} seeds from {first_seed}");
    let campaign =
        Campaign { tier: Tier::Core, first_seed, seeds: FRESH_SEEDS, time_max: Some(FRESH_SEEDS_TIME), threads: 2 };
    let report = campaign.run(&|_| {});
    println!("{}", report.summary());
    assert!(report.failed.is_none(), "{}", explain(&report.failed.unwrap(), Tier::Core));
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 1..=3 {
        assert_eq!(Tier::Core.run_seed(seed), Tier::Core.run_seed(seed));
    }
}

#[test]
fn planted_mistakes_are_found() {
    let program = Path::new(env!("CARGO_BIN_EXE_sim"));
    for mutant in [Mutant::Offset, Mutant::WatermarkByTimer, Mutant::UpsertUnversioned, Mutant::LostTailProves] {
        let case = CASES.iter().find(|case| case.mutant == mutant).unwrap();
        assert!(case.hunt(program).unwrap().killed.is_some(), "{} survived {} seeds", mutant.name(), case.seeds_max);
    }
}
