//! A client on each host that writes and reads. It knows what it must find: what a fresh read must contain, and what an
//! answer promised.

use std::sync::Arc;
use std::time::Duration;

use clicktally_api::ports::BudgetLane;
use clicktally_budget::{BudgetDecision, BudgetRules, CLOCK_DIFFERENCE_MAX};
use clicktally_node::budget::BudgetDesk;
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{CampaignTerms, Command, Outcome};
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::money::Currency;
use clicktally_raft_store::group::Group;

use super::watch::breach;
use super::world::{World, millis};
use crate::checks::Invariant;
use crate::checks::ct5_budget::ANSWER_LIFE_MS_MAX;
use crate::checks::ct6_fail_closed::{self, Allowed, AnswerSight};
use crate::checks::ct17_answers_hold::{self, FreshRead};

/// A node knows its difference only to within the time that the log takes to answer.
const CLOCK_SLACK_MS: u64 = 1_000;
const PAUSE: Duration = Duration::from_millis(250);
/// Campaigns without clicks, one in each group for each host's client.
const FIRST_CAMPAIGN: CampaignId = 9_000;
const CAMPAIGNS_PER_NODE: CampaignId = 100;

fn terms(campaign_id: CampaignId, budget_micros: i64, expected_revision: u64) -> CampaignTerms {
    CampaignTerms {
        campaign_id,
        advertiser_id: 1,
        name: String::new(),
        currency: Currency::USD,
        cost_per_click_micros: 0,
        budget_micros,
        tolerance_micros: 0,
        effective_from_ms: 0,
        expected_revision: Some(expected_revision),
    }
}

/// The interfaces that a client on a host uses.
pub(super) struct Probe {
    pub(super) world: Arc<World>,
    pub(super) node: NodeId,
    pub(super) group: Group,
    pub(super) desk: BudgetDesk,
    pub(super) clock: Arc<dyn Clock>,
}

impl Probe {
    /// Each write raises the budget by one and names the revision it replaces. So a write that arrives late or twice
    /// changes nothing.
    fn campaign(&self) -> CampaignId {
        let partitioner = self.world.shape.partitioner();
        let mut of_node = FIRST_CAMPAIGN + self.node * CAMPAIGNS_PER_NODE..;
        of_node.find(|campaign| partitioner.group(*campaign) == self.group.id()).unwrap_or(FIRST_CAMPAIGN)
    }

    /// Runs as long as the node lives.
    pub(super) async fn run(self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            self.ask_for_money().await;
            self.read_and_write().await;
        }
    }

    /// CT-5 and CT-6 for a campaign without spend.
    async fn ask_for_money(&self) {
        let Probe { world, node, group, desk, clock } = self;
        // The staleness is that of a moment after this one, and the process may freeze between that moment and its
        // answer.
        let asked_at = world.elapsed();
        for answer in desk.check(vec![self.campaign()]).await {
            if answer.decision != BudgetDecision::Serve {
                continue;
            }
            let proven_at = asked_at.saturating_sub(answer.staleness.unwrap_or_default());
            let sight = AnswerSight {
                node: *node,
                staleness_ms: answer.staleness.map(millis),
                committed_then: world.committed_at(group.id(), proven_at),
                applied: *group.applied().borrow(),
                // This campaign has no clicks; tier 0 covers campaigns with clicks.
                uncounted_for_ms: 0,
                clock_off_ms: clock.now_ms().abs_diff(world.now_ms()),
            };
            let allowed = Allowed {
                staleness_ms: millis(BudgetRules::default().staleness_max),
                uncounted_ms: 0,
                clock_off_ms: millis(CLOCK_DIFFERENCE_MAX) + CLOCK_SLACK_MS,
            };
            let life_ms = answer.expires_at_ms.saturating_sub(clock.now_ms());
            let outlives =
                (life_ms > ANSWER_LIFE_MS_MAX).then(|| breach(Invariant::Budget, format!("a yes for {life_ms} ms")));
            ct6_fail_closed::check(&sight, &allowed).into_iter().chain(outlives).for_each(|v| world.violate(v));
        }
    }

    async fn read_and_write(&self) {
        let Probe { world, node, group, .. } = self;
        let node = *node;
        // 1. Note everything committed and acknowledged before the question.
        let committed = world.committed(group.id());
        let promised: Vec<(CampaignId, i64)> = world.promised(group.id());
        if group.read_barrier().await.is_err() {
            return;
        }
        let applied = *group.applied().borrow();
        let read = FreshRead { node, committed_before: committed, applied };
        ct17_answers_hold::check_fresh(&read).into_iter().for_each(|violation| world.violate(violation));
        for (campaign, budget) in promised {
            let found = group.read(|state| state.campaign(campaign).map(|found| found.terms.budget_micros));
            let what = format!("node {node}: budget of campaign {campaign}");
            let breach = ct17_answers_hold::check_promise(&what, budget, found);
            breach.into_iter().for_each(|violation| world.violate(violation));
        }
        // 2. Write once.
        let campaign = self.campaign();
        let found =
            group.read(|state| state.campaign(campaign).map(|found| (found.terms.budget_micros, found.revision)));
        let (budget, revision) = found.map_or((1, 0), |(budget, revision)| (budget + 1, revision));
        let command = Command::SetCampaign(terms(campaign, budget, revision));
        if let Ok(Outcome::Done | Outcome::CampaignSet { .. }) = group.propose(&command).await {
            world.line(format_args!("campaign {campaign} set to {budget}"));
            world.promise(campaign, budget);
        }
    }
}
