//! The policy of `docs/billing.md` on changed terms: the budget lane and the batch treat a campaign's clicks alike.
//!
//! The stream is the real replicated state and the real rules of budgets. The batch is its real timeline of terms and
//! its real bill. Each story is told to both.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_billing::bill::{BilledByCampaign, BilledElsewhere, BilledUsage, Terms, TermsTimeline, Usage, bill};
use clicktally_budget::{BudgetDecision, BudgetFacts, BudgetRules};
use clicktally_proto::checkpoint::{Checkpoint, Epoch, OutcomeCounts};
use clicktally_proto::codec;
use clicktally_proto::command::{
    AssignShard, COMMAND_LEVEL, CampaignTerms, Command, GroupSettings, NodeRecord, Outcome,
};
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::{CellDelta, CellKey, Counts};
use clicktally_proto::event_time::{EventTimeRules, Minute, UnixMillis};
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_proto::money::{Currency, Micros};
use clicktally_state::group_state::GroupState;

const CAMPAIGN: u64 = 7;
const PRICE: Micros = 100;

/// Clicks of one arrival.
struct Arrived {
    event_time_ms: UnixMillis,
    arrival_ms: UnixMillis,
    clicks: u64,
}

/// One campaign, seen by both sides.
struct Story {
    state: GroupState,
    index: u64,
    terms: Vec<Terms>,
    arrived: Vec<Arrived>,
}

impl Story {
    fn begin() -> Story {
        let mut story = Story { state: GroupState::new(GroupId(0)), index: 0, terms: Vec::new(), arrived: Vec::new() };
        story.apply(&Command::Configure(GroupSettings::new(1, EventTimeRules::default())));
        story.apply(&Command::RegisterNode(NodeRecord {
            node: 1,
            http_address: "a".to_owned(),
            peer_address: "b".to_owned(),
            can_aggregate: true,
        }));
        story.apply(&Command::AssignShard(AssignShard { shard: ShardId(0), owner: Some(1), expected_epoch: Epoch(0) }));
        story
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, &codec::encode(command).unwrap(), COMMAND_LEVEL).unwrap()
    }

    /// The advertiser changes the terms, which are in force from then on.
    fn agree(&mut self, at_ms: UnixMillis, cost_per_click_micros: Micros, budget_micros: Micros) {
        let terms = CampaignTerms {
            campaign_id: CAMPAIGN,
            advertiser_id: 1,
            name: "spring".to_owned(),
            currency: Currency::USD,
            cost_per_click_micros,
            budget_micros,
            tolerance_micros: 0,
            effective_from_ms: at_ms,
            expected_revision: None,
        };
        let Outcome::CampaignSet { revision } = self.apply(&Command::SetCampaign(terms)) else { panic!("not set") };
        self.terms.push(Terms {
            campaign_id: CAMPAIGN.cast_signed(),
            revision: revision.cast_signed(),
            advertiser_id: 1,
            name: "spring".to_owned(),
            currency: Currency::USD,
            cost_per_click_micros,
            budget_micros,
            effective_from_ms: at_ms,
        });
    }

    fn click(&mut self, event_time_ms: UnixMillis, arrival_ms: UnixMillis, clicks: u64) {
        let from = self.arrived.iter().map(|arrived| arrived.clicks).sum();
        let key = CellKey { minute: Minute::of(event_time_ms), campaign_id: CAMPAIGN, ad_id: 1 };
        let mut cells = vec![CellDelta { key, counts: Counts { clicks, ..Counts::default() } }];
        let checkpoint = Checkpoint {
            shard: ShardId(0),
            epoch: Epoch(1),
            from,
            to: from + clicks,
            watermark_ms: 0,
            complete_to_ms: arrival_ms,
            outcomes: OutcomeCounts { read: clicks, counted: clicks, ..OutcomeCounts::default() },
            cells: CellBlock::pack(&mut cells),
            seen: Vec::new(),
        };
        assert_eq!(self.apply(&Command::Checkpoint(checkpoint)), Outcome::Done);
        self.arrived.push(Arrived { event_time_ms, arrival_ms, clicks });
    }

    /// What the budget lane would answer now, and what the stream charges so far.
    fn stream(&self) -> (BudgetDecision, Micros) {
        let Some(campaign) = self.state.campaign(CAMPAIGN) else { return (BudgetDecision::Pause, 0) };
        let facts = BudgetFacts {
            budget_micros: campaign.terms.budget_micros,
            spend_micros: campaign.spend_micros,
            tolerance_micros: campaign.terms.tolerance_micros,
            staleness: Some(Duration::ZERO),
            complete_to_ms: 1_000_000,
            log_now_ms: Some(1_000_000),
            clock_difference_ms: 0,
            velocity_micros: 0,
            now_ms: 1_000_000,
        };
        (BudgetRules::default().decide(&facts).decision, campaign.spend_micros)
    }

    /// What the batch bills for all of it, as one day.
    fn batch(&self) -> Vec<BilledUsage> {
        self.batch_beside(&BilledByCampaign::new())
    }

    fn batch_beside(&self, elsewhere: &BilledByCampaign) -> Vec<BilledUsage> {
        let timeline = TermsTimeline::new(self.terms.clone());
        let intervals = timeline.intervals();
        let mut clicks: BTreeMap<i64, u64> = BTreeMap::new();
        for arrived in &self.arrived {
            let revision = intervals.iter().find(|interval| interval.holds(arrived.event_time_ms, arrived.arrival_ms));
            *clicks.entry(revision.map_or(0, |interval| interval.revision)).or_default() += arrived.clicks;
        }
        let usages: Vec<Usage> = clicks
            .into_iter()
            .map(|(terms_revision, clicks)| Usage {
                campaign_id: CAMPAIGN.cast_signed(),
                terms_revision,
                clicks,
                invalid_clicks: 0,
            })
            .collect();
        bill(&usages, &timeline, elsewhere).unwrap()
    }

    fn billed_micros(&self) -> Micros {
        self.batch().iter().map(|billed| billed.amount_micros).sum()
    }
}

fn is_served(decision: BudgetDecision) -> bool {
    decision == BudgetDecision::Serve
}

#[test]
fn a_lowered_budget_stops_new_clicks_and_takes_nothing_back() {
    let mut story = Story::begin();
    story.agree(1_000, PRICE, 10 * PRICE);
    story.click(2_000, 2_000, 8);
    assert_eq!((story.stream(), story.billed_micros()), ((BudgetDecision::Serve, 8 * PRICE), 8 * PRICE));
    story.agree(3_000, PRICE, 5 * PRICE);
    // The stream still charges what it charged, and serves no more. The batch bills what it billed.
    assert_eq!((story.stream(), story.billed_micros()), ((BudgetDecision::Pause, 8 * PRICE), 8 * PRICE));
    // A click that comes all the same is given away, on both sides of the books.
    story.click(4_000, 4_000, 1);
    assert!(!is_served(story.stream().0));
    assert_eq!(story.billed_micros(), 8 * PRICE);
    // A raised budget makes room above everything charged so far.
    story.agree(5_000, PRICE, 11 * PRICE);
    assert!(is_served(story.stream().0));
    story.click(6_000, 6_000, 2);
    assert!(!is_served(story.stream().0));
    assert_eq!(story.billed_micros(), 10 * PRICE, "the click that was given away is not charged later");
}

#[test]
fn a_budget_that_other_days_used_up_serves_and_bills_nothing() {
    let mut story = Story::begin();
    story.agree(1_000, PRICE, 5 * PRICE);
    story.click(2_000, 2_000, 3);
    let budget = (CAMPAIGN.cast_signed(), Currency::USD);
    let earlier = BilledElsewhere { earlier_micros: 4 * PRICE, later: Vec::new() };
    let billed: Micros = story.batch_beside(&BTreeMap::from([(budget, earlier)])).iter().map(|b| b.amount_micros).sum();
    assert_eq!(billed, PRICE);
}

#[test]
fn a_click_that_arrives_before_the_first_terms_is_charged_by_neither() {
    let mut story = Story::begin();
    story.click(1_000, 1_000, 4);
    assert_eq!(story.stream(), (BudgetDecision::Pause, 0), "an unknown campaign is not served");
    story.agree(5_000, PRICE, 10 * PRICE);
    assert_eq!((story.stream().1, story.billed_micros()), (0, 0));
    let causes: Vec<_> = story.batch().iter().map(|billed| billed.unbilled_cause.map(|c| c.as_str())).collect();
    assert_eq!(causes, [Some("unknown_campaign")]);
}

#[test]
fn a_click_dated_before_the_first_terms_that_arrives_later_is_charged_by_both() {
    let mut story = Story::begin();
    story.agree(5_000, PRICE, 10 * PRICE);
    story.click(4_000, 6_000, 3);
    assert_eq!((story.stream().1, story.billed_micros()), (3 * PRICE, 3 * PRICE));
}

#[test]
fn terms_apply_from_the_moment_they_are_accepted_and_to_no_click_before() {
    let mut story = Story::begin();
    story.agree(1_000, PRICE, 100 * PRICE);
    story.click(2_000, 2_000, 3);
    story.agree(3_000, 2 * PRICE, 100 * PRICE);
    story.click(4_000, 4_000, 5);
    assert_eq!((story.stream().1, story.billed_micros()), (13 * PRICE, 13 * PRICE));
    // A click dated before the change that arrives after it is billed at the terms of its own time. The stream charged
    // it at those of its arrival; reconciliation names the difference `terms_changed`.
    story.click(2_500, 5_000, 1);
    assert_eq!((story.stream().1, story.billed_micros()), (15 * PRICE, 14 * PRICE));
}
