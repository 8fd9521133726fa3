//! What happens now and then besides the faults of the first edition: each kind in a stream and a timetable of its own.
//!
//! The table of `faults.rs` is closed, because another row would shift every draw behind it. A new kind of fault or
//! command is a row here: the stories of earlier editions do not contain it, and a seed in which it does not occur
//! stays the same ([`crate::simulation::edition`]).

use clicktally_proto::command::{COMMAND_LEVEL, COMMAND_LEVEL_MIN, CampaignTerms, Command};
use clicktally_state::group_state::GroupState;

use super::event::Event;
use super::world::World;
use crate::simulation::edition::{Edition, Story};
use crate::simulation::random::Stream;

/// One kind of happening.
#[derive(Debug)]
pub(super) struct Kind {
    /// The name of its stream.
    pub(super) name: &'static str,
    pub(super) since: Edition,
    /// It occurs in this many of a thousand seeds.
    pub(super) seeds_permille: u64,
    /// The time between two of them is drawn from this range.
    pub(super) every_ms: (u64, u64),
    /// Draws from its own stream alone, and commits by [`World::commit_unannounced`].
    pub(super) happen: fn(&mut World, &mut Stream),
}

/// Rows are appended.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "LeaseWorker",
        since: Edition::LEVELS,
        seeds_permille: 500,
        every_ms: (5_000, 60_000),
        happen: lease_worker,
    },
    Kind {
        name: "AnnounceLevel",
        since: Edition::LEVELS,
        seeds_permille: 500,
        every_ms: (5_000, 60_000),
        happen: announce_level,
    },
    Kind { name: "EditTerms", since: Edition::TERMS, seeds_permille: 500, every_ms: (500, 20_000), happen: edit_terms },
    Kind {
        name: "TermsExported",
        since: Edition::TERMS,
        seeds_permille: 500,
        every_ms: (1_000, 40_000),
        happen: export_terms,
    },
    Kind {
        name: "MakeLogAgain",
        since: Edition::LOG_IDENTITY,
        seeds_permille: 100,
        every_ms: (5_000, 60_000),
        happen: make_log_again,
    },
];

/// A kind in a seed in which it occurs.
#[derive(Debug)]
pub(super) struct Happening {
    kind: &'static Kind,
    random: Stream,
}

impl Happening {
    /// The happenings of a story, among `kinds`.
    pub(super) fn draw(story: Story, kinds: &'static [Kind]) -> Vec<Happening> {
        let of_edition = kinds.iter().filter(|kind| kind.since <= story.edition);
        let drawn =
            of_edition.map(|kind| Happening { kind, random: story.seed.stream(&format!("happening {}", kind.name)) });
        drawn.filter_map(|mut drawn| drawn.random.permille(drawn.kind.seeds_permille).then_some(drawn)).collect()
    }
}

impl World {
    /// Schedules the first of each kind.
    pub(super) fn await_happenings(&mut self) {
        (0..self.happenings.len()).for_each(|at| self.await_happening(at));
    }

    fn await_happening(&mut self, at: usize) {
        let Happening { kind, random } = &mut self.happenings[at];
        let pause_ms = random.between(kind.every_ms.0, kind.every_ms.1);
        self.agenda.after(pause_ms, Event::Happening(at));
    }

    /// Ends with the faults.
    pub(super) fn happening(&mut self, at: usize) {
        if self.is_calm {
            return;
        }
        let kind = self.happenings[at].kind;
        let mut random = self.happenings[at].random.clone();
        (kind.happen)(self, &mut random);
        self.happenings[at].random = random;
        self.await_happening(at);
    }
}

/// A node that has just started takes a worker id for this life.
fn lease_worker(world: &mut World, random: &mut Stream) {
    let running = world.running();
    let Some(&node) = random.pick(&running).filter(|_| world.consensus.leader.is_some()) else { return };
    let incarnation = world.nodes[&node].incarnation;
    world.commit_unannounced(Command::LeaseWorker { node, incarnation });
}

/// A node says which commands its build applies: any supported level, as it may have been upgraded or set back.
fn announce_level(world: &mut World, random: &mut Stream) {
    let running = world.running();
    let level = u16::try_from(random.between(COMMAND_LEVEL_MIN.into(), COMMAND_LEVEL.into())).unwrap_or(COMMAND_LEVEL);
    let Some(&node) = random.pick(&running).filter(|_| world.consensus.leader.is_some()) else { return };
    world.commit_unannounced(Command::AnnounceLevel { node, level });
}

/// An advertiser renames a campaign. Its price stays, because the checks of budgets expect it.
fn edit_terms(world: &mut World, random: &mut Stream) {
    let name = format!("edit {}", random.between(1, 1_000_000));
    let Some(state) = a_replica(world, random) else { return };
    let campaigns: Vec<CampaignTerms> = state.campaigns().values().map(|campaign| campaign.terms.clone()).collect();
    let Some(terms) = random.pick(&campaigns) else { return };
    let terms = CampaignTerms { name, expected_revision: None, ..terms.clone() };
    world.commit_unannounced(Command::SetCampaign(terms));
}

/// A writer has carried all terms of its replica, which may lag, into PostgreSQL.
fn export_terms(world: &mut World, random: &mut Stream) {
    let Some(state) = a_replica(world, random) else { return };
    let in_force = state.campaigns().values().map(|campaign| campaign.revision);
    let through_revision = in_force.max().unwrap_or(0).max(1);
    world.commit_unannounced(Command::TermsExported { through_revision });
}

/// The raw topic is deleted and made again while a node restarts, once in a run.
fn make_log_again(world: &mut World, random: &mut Stream) {
    let running = world.running();
    let Some(&node) = random.pick(&running) else { return };
    if world.consensus.state.log_id() != Some(world.log.id()) {
        return;
    }
    world.report.fault("log made again");
    world.log.make_again();
    world.crash(node);
}

fn a_replica<'a>(world: &'a World, random: &mut Stream) -> Option<&'a GroupState> {
    let running = world.running();
    let node = random.pick(&running).filter(|_| world.consensus.leader.is_some())?;
    Some(&world.nodes[node].memory.replica.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::core::run_with;
    use crate::simulation::report::SeedReport;

    /// A fault that does not exist yet.
    const PLANTED: &[Kind] = &[Kind {
        name: "Planted",
        since: Edition::NEWEST,
        seeds_permille: 500,
        every_ms: (1_000, 10_000),
        happen: |world, random| {
            let running = world.running();
            let Some(&node) = random.pick(&running) else { return };
            world.report.fault("Planted");
            world.crash(node);
        },
    }];

    #[test]
    fn a_new_kind_of_fault_leaves_the_story_of_a_seed_in_which_it_does_not_occur() {
        let (mut same, mut other) = (0, 0);
        for seed in 1..=12 {
            let story = Story::newest(seed);
            let (before, after) = (run_with(story, &[]), run_with(story, PLANTED));
            let occurred = after.faults.contains_key("Planted");
            assert_eq!(before.trace_hash == after.trace_hash, !occurred, "seed {seed}");
            *(if occurred { &mut other } else { &mut same }) += 1;
        }
        assert!(same > 0 && other > 0, "{same} seeds without it, {other} with it");
    }

    #[test]
    fn a_story_of_an_earlier_edition_does_not_contain_it() {
        let run = |kinds: &'static [Kind]| -> Vec<SeedReport> {
            let story = |seed| Story { edition: Edition::FIRST, ..Story::newest(seed) };
            (1..=4).map(|seed| run_with(story(seed), kinds)).collect()
        };
        assert_eq!(run(KINDS), run(&[]));
    }
}
