//! One campaign's budget. The actor reads the replica for each answer and remembers how fast the campaign spends.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use clicktally_budget::{BudgetAnswer, BudgetFacts, BudgetRules, LaneFailure, SpendVelocity, close};
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::{Micros, Money};
use clicktally_raft_store::group::Group;

use super::budget_desk::Directory;
use super::metrics;
use crate::log_clock::LogClock;

/// Checks that wait for one campaign. A check that finds the mailbox full waits until its deadline and is then closed.
const MAILBOX_MAX: usize = 128;
/// An actor that gets no check for this long stops; the next check starts a new one.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// More than any campaign can lose. The bound keeps the sum over many campaigns from wrapping.
const AT_RISK_SHOWN_MAX: Micros = 1_000_000_000_000;

pub struct BudgetActor {
    campaign_id: CampaignId,
    group: Arc<Group>,
    clock: Arc<dyn Clock>,
    log_clock: Arc<LogClock>,
    rules: BudgetRules,
    directory: Arc<Directory>,
    velocity: SpendVelocity,
    asked_at: Duration,
    at_risk_shown: Option<Money>,
}

#[derive(Debug, Message)]
#[rtype(result = "BudgetAnswer")]
pub struct Check;

impl BudgetActor {
    pub(super) fn new(
        campaign_id: CampaignId,
        group: Arc<Group>,
        clock: Arc<dyn Clock>,
        log_clock: Arc<LogClock>,
        rules: BudgetRules,
        directory: Arc<Directory>,
        assumed_velocity: Micros,
    ) -> BudgetActor {
        let asked_at = clock.monotonic();
        let velocity = SpendVelocity::new(assumed_velocity);
        BudgetActor { campaign_id, group, clock, log_clock, rules, directory, velocity, asked_at, at_risk_shown: None }
    }

    fn answer(&mut self) -> BudgetAnswer {
        // 1. Read the staleness first: what is read after it is at least as fresh.
        let staleness = self.group.staleness();
        let (campaign, complete_to_ms) =
            self.group.read(|state| (state.campaign(self.campaign_id).cloned(), state.complete_to_ms()));
        // 2. Read the time last: the answer's life begins when its facts are known.
        let (log_now_ms, difference_ms) = (self.log_clock.reached(), self.log_clock.difference_ms());
        let now_ms = self.clock.now_ms();
        let Some(campaign) = campaign else { return close(self.campaign_id, LaneFailure::UnknownCampaign, now_ms) };
        self.velocity.observe(complete_to_ms, campaign.spend_micros);
        let verdict = self.rules.decide(&BudgetFacts {
            budget_micros: campaign.terms.budget_micros,
            spend_micros: campaign.spend_micros,
            tolerance_micros: campaign.terms.tolerance_micros,
            staleness,
            complete_to_ms,
            log_now_ms,
            clock_difference_ms: difference_ms.unwrap_or(0).unsigned_abs(),
            velocity_micros: self.velocity.micros_per_second(),
            now_ms,
        });
        if let Some(age) = staleness {
            metrics::STALENESS.observe(age.as_secs_f64());
        }
        let currency = campaign.terms.currency;
        let amount_micros = verdict.at_risk_micros.min(AT_RISK_SHOWN_MAX);
        self.show_at_risk(Some(Money { amount_micros, currency }));
        BudgetAnswer {
            campaign_id: self.campaign_id,
            decision: verdict.decision,
            remaining: Some(Money { amount_micros: verdict.remaining_micros, currency }),
            as_of_ms: complete_to_ms,
            staleness,
            expires_at_ms: verdict.expires_at_ms,
            reason: verdict.reason,
        }
    }

    fn show_at_risk(&mut self, at_risk: Option<Money>) {
        metrics::move_at_risk(self.at_risk_shown, at_risk);
        self.at_risk_shown = at_risk;
    }
}

impl Actor for BudgetActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX_MAX);
        context.run_interval(IDLE_MAX / 2, |actor, context| {
            if actor.clock.monotonic().saturating_sub(actor.asked_at) > IDLE_MAX {
                context.stop();
            }
        });
    }

    fn stopped(&mut self, context: &mut Self::Context) {
        self.show_at_risk(None);
        self.directory.remove(self.campaign_id, &context.address());
    }
}

impl Handler<Check> for BudgetActor {
    type Result = MessageResult<Check>;

    fn handle(&mut self, _: Check, _: &mut Self::Context) -> Self::Result {
        self.asked_at = self.clock.monotonic();
        MessageResult(self.answer())
    }
}
