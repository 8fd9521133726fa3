//! Tier 2: what is owed. Real rules (terms, prices, budgets, documents, ledger, reconciliation, finality) run over days
//! of random changes of terms, clicks, runs, reruns and finalisations, without PostgreSQL, Kafka or files.
//!
//! Real are the replicated state with its terms and spend, what the catalogue writer offers to PostgreSQL, and
//! everything that `billing` decides. Models are PostgreSQL's tables, the batch's query over the archive, and the
//! stream's shards and watermarks. A recount that shares no code with `billing` says what is right.
//!
//! In the order of a run: the plan, the stream, PostgreSQL, what the operator does, what is right, and the checks.

mod plan;

mod stream;
mod tables;

mod faults;
mod operator;
mod traffic;
mod world;

mod recount;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::edition::Story;
use super::report::{Breach, SeedReport};
use world::World;

/// Runs one story to its end, or to its first violation. A failed assert of the product is a violation.
pub fn run_story(story: Story) -> SeedReport {
    let mut world = World::new(story);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let breach = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(Breach::Invariant(violation)),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Some(Breach::Panic(message.unwrap_or_default()))
        }
    };
    world.into_report(breach)
}
