//! The budget lane of each node: how current its replica is, and which answers it gives.

use std::time::Duration;

use clicktally_budget::{BudgetDecision, BudgetFacts, BudgetRules, CLOCK_DIFFERENCE_MAX, SpendVelocity};

use super::event::{Event, IndexFor, Life, NodeEvent};
use super::world::World;
use crate::checks::ct5_budget::{self, PositiveAnswer};
use crate::checks::ct6_fail_closed::{self, Allowed, AnswerSight};

const FRESHEN_EVERY_MS: u64 = 500;
const ASK_EVERY_MS: u64 = 900;
/// What drift may add, and a tick.
const SLACK_MS: u64 = 100;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl World {
    pub(super) fn freshen(&mut self, life: Life) {
        self.agenda.after(FRESHEN_EVERY_MS, Event::To(life, NodeEvent::Freshen));
        let asked_at_ms = millis(self.nodes[&life.node].clock.monotonic(self.now_ms()));
        self.ask_index(life, IndexFor::Freshness { asked_at_ms });
    }

    pub(super) fn proven_fresh(&mut self, life: Life, asked_at_ms: u64, committed: u64) {
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        if node.memory.fresh.is_none_or(|(known_ms, _)| known_ms < asked_at_ms) {
            node.memory.fresh = Some((asked_at_ms, committed));
        }
    }

    /// How long the oldest uncounted click has been waiting in a partition that lost nothing.
    fn uncounted_for_ms(&self) -> u64 {
        let now_ms = self.log_ms();
        let waiting = self.consensus.state.shards().iter().filter_map(|(&shard, entry)| {
            let next = usize::try_from(entry.committed_offset).ok()?;
            let is_whole = !self.log.is_lost(shard);
            self.log.held(shard).get(next).filter(|_| is_whole).map(|record| now_ms - record.arrival_ms)
        });
        waiting.max().unwrap_or(0)
    }

    pub(super) fn ask_budget(&mut self, life: Life) {
        self.agenda.after(ASK_EVERY_MS, Event::To(life, NodeEvent::AskBudget));
        let campaign_id = 1 + self.budget.below(4);
        let (now_ms, log_ms) = (self.now_ms(), self.log_ms());
        let node = self.nodes.get_mut(&life.node).expect("a living node");
        node.ask_log_time(now_ms, log_ms);
        let log_now_ms = node.log_reached(now_ms);
        let (now, wall_ms) = (node.clock.monotonic(now_ms), node.clock.wall_ms(now_ms));
        let difference_ms = node.memory.log_time.map_or(0, |known| known.difference_ms(now, wall_ms));
        let monotonic_ms = millis(node.clock.monotonic(now_ms));
        let (state, applied) = (&node.memory.replica.state, node.memory.replica.applied);
        let Some(campaign) = state.campaign(campaign_id) else { return };
        let staleness = node.memory.fresh.map(|(at_ms, _)| Duration::from_millis(monotonic_ms - at_ms));
        let complete_to_ms = state.complete_to_ms();
        let velocity = node.memory.velocities.entry(campaign_id).or_insert_with(|| SpendVelocity::new(0));
        velocity.observe(complete_to_ms, campaign.spend_micros);
        let velocity_micros = velocity.micros_per_second();
        let rules = BudgetRules::default();
        let verdict = rules.decide(&BudgetFacts {
            budget_micros: campaign.terms.budget_micros,
            spend_micros: campaign.spend_micros,
            tolerance_micros: campaign.terms.tolerance_micros,
            staleness,
            complete_to_ms,
            log_now_ms,
            clock_difference_ms: difference_ms.unsigned_abs(),
            velocity_micros,
            now_ms: wall_ms,
        });
        if verdict.decision == BudgetDecision::Pause {
            return;
        }
        let staleness_ms = staleness.map(millis);
        let answer = PositiveAnswer {
            campaign: campaign_id,
            answered_at_ms: wall_ms,
            expires_at_ms: verdict.expires_at_ms,
            budget_micros: campaign.terms.budget_micros,
            tolerance_micros: campaign.terms.tolerance_micros,
            spend_micros: campaign.spend_micros,
            velocity_micros_per_s: velocity_micros,
            blind_ms: log_ms.saturating_sub(complete_to_ms).max(staleness_ms.unwrap_or(u64::MAX / 2)),
        };
        let committed_then = node.memory.fresh.map_or(u64::MAX, |(_, committed)| committed);
        let uncounted_for_ms = self.uncounted_for_ms();
        let clock_off_ms = wall_ms.abs_diff(log_ms);
        let sight =
            AnswerSight { node: life.node, staleness_ms, committed_then, applied, uncounted_for_ms, clock_off_ms };
        let allowed = Allowed {
            staleness_ms: millis(rules.staleness_max),
            uncounted_ms: millis(rules.counting_lag_max + rules.staleness_max) + SLACK_MS,
            clock_off_ms: millis(CLOCK_DIFFERENCE_MAX) + SLACK_MS,
        };
        self.watch.positive_answers += 1;
        self.watch.found(ct5_budget::check_answer(&answer));
        self.watch.found(ct6_fail_closed::check(&sight, &allowed));
    }
}
