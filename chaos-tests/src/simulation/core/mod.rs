//! Tier 0: the pure core. Real rules (`ShardState`, the commit decision, `GroupState`, placement, heartbeats,
//! snapshots, the selection of rows, budgets) run under the simulation's own scheduler, with a model of consensus and
//! without sockets, runtime or threads.
//!
//! In the order of a run: the plan, the clockwork, the nodes and their work, the faults, the watch, and the end.

mod agenda;
mod event;
mod plan;

mod consensus;
mod node;
mod node_clock;
mod owner;
mod replica;

mod budget_work;
mod leader_work;
mod replication;
mod shard_work;
mod sink_work;

mod faults;
mod happenings;
mod settle;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::edition::Story;
use super::report::{Breach, Finding, SeedReport};
use world::World;

/// Runs one story to its end, or to its first violation. A failed assert of the product is a violation.
pub fn run_story(story: Story) -> SeedReport {
    run_with(story, happenings::KINDS)
}

fn run_with(story: Story, kinds: &'static [happenings::Kind]) -> SeedReport {
    let mut world = World::new(story, kinds);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.run_until(world.faulty_ms());
        if world.is_clean() {
            world.settle();
        }
    }));
    world.into_report(ended.err().map(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
    }))
}

impl World {
    fn faulty_ms(&self) -> u64 {
        self.plan.faulty_ms
    }

    fn is_clean(&self) -> bool {
        !self.watch.has_violations()
    }

    fn into_report(self, panic: Option<String>) -> SeedReport {
        let broken = self.watch.first_violation().cloned().map(Breach::Invariant);
        let breach = panic.map(Breach::Panic).or(broken);
        let violation = breach.map(|breach| Finding::of(breach, self.trace.tail()));
        SeedReport {
            trace_hash: self.trace.hash(),
            trace_lines: self.trace.lines(),
            simulated_ms: self.agenda.now_ms(),
            violation,
            ..self.report
        }
    }
}
