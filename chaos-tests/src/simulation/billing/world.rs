//! A story: what happens in which order, and how it is brought to its end.

use clicktally_billing::Day;
use clicktally_node::sink::terms_news::Offered;
use clicktally_proto::event_time::UnixMillis;

use super::plan::Plan;
use super::stream::Stream;
use super::tables::Tables;
use super::watch::Watch;
use crate::checks::{Invariant, Violation};
use crate::simulation::edition::Story;
use crate::simulation::random;
use crate::simulation::report::{Breach, Finding, SeedReport};
use crate::simulation::trace::Trace;

const HOUR_MS: u64 = 3_600_000;

/// Draws for each purpose.
pub(super) struct Draws {
    pub(super) steps: random::Stream,
    pub(super) time: random::Stream,
    pub(super) traffic: random::Stream,
    pub(super) terms: random::Stream,
    pub(super) operator: random::Stream,
    pub(super) faults: random::Stream,
}

pub(super) struct World {
    story: Story,
    pub(super) plan: Plan,
    pub(super) draws: Draws,
    pub(super) now_ms: UnixMillis,
    pub(super) stream: Stream,
    /// What the catalogue writer of this life has offered to PostgreSQL.
    pub(super) offered: Offered,
    pub(super) tables: Tables,
    pub(super) watch: Watch,
    /// Nothing fails any more.
    pub(super) is_healed: bool,
    pub(super) trace: Trace,
    pub(super) report: SeedReport,
}

/// One thing that happens, and how often among a hundred.
type Happening = (u64, fn(&mut World) -> Result<(), Violation>);

const HAPPENINGS: [Happening; 10] = [
    (36, World::clicks_arrive),
    (14, World::terms_change),
    (15, World::terms_are_exported),
    (10, World::a_day_is_run),
    (6, World::a_day_is_reconciled),
    (5, World::a_day_is_finalised),
    (7, World::a_night_passes),
    (2, World::a_writer_starts_anew),
    (3, World::a_group_stalls_or_resumes),
    (2, World::a_fault_strikes),
];

impl World {
    pub(super) fn new(story: Story) -> World {
        let plan = Plan::draw(story.seed);
        let stream = |purpose: &str| story.seed.stream(&format!("billing {purpose}"));
        let draws = Draws {
            steps: stream("steps"),
            time: stream("time"),
            traffic: stream("traffic"),
            terms: stream("terms"),
            operator: stream("operator"),
            faults: stream("faults"),
        };
        World {
            story,
            now_ms: plan.begins_ms(),
            stream: Stream::new(plan.groups, plan.rules),
            plan,
            draws,
            offered: Offered::default(),
            tables: Tables::default(),
            watch: Watch::default(),
            is_healed: false,
            trace: Trace::default(),
            report: SeedReport::default(),
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Violation> {
        // The first report: from here on, the state keeps terms that are replaced.
        self.terms_are_exported()?;
        for _ in 0..self.plan.steps {
            self.pass_time();
            let mut drawn = self.draws.steps.below(HAPPENINGS.iter().map(|(weight, _)| weight).sum());
            for (weight, happen) in HAPPENINGS {
                if drawn < weight {
                    happen(self)?;
                    break;
                }
                drawn -= weight;
            }
            self.check_books()?;
        }
        self.settle()
    }

    /// Time passes: an instant, seconds, hours, or up to a moment at which a rule changes its mind.
    fn pass_time(&mut self) {
        let draws = &mut self.draws.time;
        let next_midnight_ms = Day::of(self.now_ms).map_or(self.now_ms, |day| day.end_ms());
        let last_midnight_ms = Day::of(self.now_ms).map_or(self.now_ms, |day| day.start_ms());
        let wobble_ms = draws.below(3);
        // The days after the last one have no story of their own.
        let is_over = self.now_ms > self.plan.ends_ms() + HOUR_MS;
        let later_ms = match draws.below(if is_over { 10 } else { 20 }) {
            0..4 => self.now_ms + draws.below(2),
            4..10 => self.now_ms + draws.between(1, 90_000),
            10..15 => self.now_ms + draws.between(60_000, HOUR_MS),
            15..18 => self.now_ms + draws.between(HOUR_MS, 4 * HOUR_MS),
            18 => next_midnight_ms + wobble_ms - 1,
            _ => last_midnight_ms + self.plan.lateness_ms() + wobble_ms - 1,
        };
        // Whatever arrived more than a moment ago has been counted.
        if later_ms > self.now_ms + 1_000 {
            self.stream.count();
        }
        self.now_ms = self.now_ms.max(later_ms);
    }

    /// Everything heals, the days end, and each is billed, reconciled and finalised.
    fn settle(&mut self) -> Result<(), Violation> {
        self.is_healed = true;
        self.heal();
        let all_over_ms = self.plan.ends_ms() + self.plan.lateness_ms() + self.plan.rules.max_ahead_ms;
        self.now_ms = self.now_ms.max(all_over_ms) + 1;
        self.stream.resume_all();
        self.terms_are_exported()?;
        let mut days = self.plan.days.clone();
        for day in days.clone() {
            // An operator forgets to reconcile.
            if self.draws.operator.permille(500) && self.run_day(day)? {
                self.finalise_day(day, false)?;
            }
        }
        while !days.is_empty() {
            let next = self.draws.operator.below(days.len() as u64);
            let day = days.swap_remove(usize::try_from(next).unwrap_or(0));
            let is_billed = self.run_day(day)?;
            self.reconcile_day(day)?;
            let is_final = self.finalise_day(day, false)?;
            self.check_books()?;
            if !is_billed || !is_final {
                let detail = format!("{day} is over, and cannot be billed and finalised");
                return Err(Violation { invariant: Invariant::Liveness, detail });
            }
        }
        for day in self.plan.days.clone() {
            self.run_day(day)?;
            self.check_books()?;
        }
        Ok(())
    }

    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now_ms - self.plan.begins_ms(), what);
    }

    pub(super) fn into_report(self, breach: Option<Breach>) -> SeedReport {
        SeedReport {
            seed: self.story.seed.0,
            edition: self.story.edition,
            trace_hash: self.trace.hash(),
            trace_lines: self.trace.lines(),
            simulated_ms: self.now_ms - self.plan.begins_ms(),
            clicks: self.stream.log.len() as u64,
            violation: breach.map(|breach| Finding::of(breach, self.trace.tail())),
            ..self.report
        }
    }
}
