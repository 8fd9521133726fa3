//! What advertisers and browsers do: terms change, and clicks arrive.

use clicktally_proto::command::CampaignTerms;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::money::Micros;

use super::stream::Click;
use super::world::World;
use crate::checks::Violation;

const HOUR_MS: u64 = 3_600_000;
const PRICES: [Micros; 6] = [0, 1, 100, 250, 300, 70_000];

impl World {
    /// Sets a price, a budget or both. A node's clock may be a little behind that of the node before.
    pub(super) fn terms_change(&mut self) -> Result<(), Violation> {
        let draws = &mut self.draws.terms;
        let Some(campaign) = draws.pick(&self.plan.campaigns).cloned() else { return Ok(()) };
        let cost_per_click_micros = draws.pick(&PRICES).copied().unwrap_or(1);
        let affordable = Micros::try_from(draws.between(0, 60)).unwrap_or(0);
        let behind_ms = if draws.permille(150) { draws.below(1_500) } else { 0 };
        let terms = CampaignTerms {
            campaign_id: campaign.campaign_id,
            advertiser_id: campaign.advertiser_id,
            name: format!("campaign {}", campaign.campaign_id),
            currency: campaign.currency,
            cost_per_click_micros,
            budget_micros: affordable * draws.pick(&PRICES).copied().unwrap_or(1),
            tolerance_micros: 0,
            effective_from_ms: self.now_ms - behind_ms,
            expected_revision: None,
        };
        self.note(format_args!(
            "campaign {}: {} a click within {} {}",
            terms.campaign_id, terms.cost_per_click_micros, terms.budget_micros, terms.currency
        ));
        self.stream.agree(terms);
        Ok(())
    }

    pub(super) fn clicks_arrive(&mut self) -> Result<(), Violation> {
        let Some(campaign) = self.draws.traffic.pick(&self.plan.campaigns).cloned() else { return Ok(()) };
        let event_time_ms = self.event_time(campaign.campaign_id).max(self.plan.begins_ms());
        let clicks = 1 + self.draws.traffic.zipf(12);
        let ad_id = 1 + self.draws.traffic.below(2);
        for _ in 0..clicks {
            let click = Click {
                offset: self.stream.log.len() as u64,
                campaign_id: campaign.campaign_id,
                ad_id,
                event_time_ms,
                arrival_ms: self.now_ms,
                is_valid: !self.draws.traffic.permille(60),
            };
            self.stream.arrive(click);
        }
        if self.draws.traffic.permille(700) {
            self.stream.count();
        }
        let behind_ms = i128::from(self.now_ms) - i128::from(event_time_ms);
        self.note(format_args!("campaign {}: {clicks} clicks, {behind_ms} ms behind", campaign.campaign_id));
        Ok(())
    }

    /// Mostly just now. Otherwise at an instant at which a rule changes its mind, long ago, or ahead.
    fn event_time(&mut self, campaign_id: u64) -> UnixMillis {
        let draws = &mut self.draws.traffic;
        let wobble_ms = draws.below(3);
        let changes: Vec<UnixMillis> = self
            .stream
            .accepted
            .iter()
            .filter(|accepted| accepted.terms.campaign_id == campaign_id)
            .map(|accepted| accepted.terms.effective_from_ms)
            .collect();
        let midnight_ms = clicktally_billing::Day::of(self.now_ms).map_or(self.now_ms, |day| day.start_ms());
        let bound_ms = self.now_ms + self.plan.rules.max_ahead_ms;
        match draws.below(20) {
            0..10 => self.now_ms - draws.below(100_000),
            10..14 => draws.pick(&changes).map_or(self.now_ms, |change_ms| change_ms + wobble_ms - 1).min(bound_ms),
            14 => midnight_ms + wobble_ms - 1,
            15..17 => self.now_ms - draws.below(30 * HOUR_MS),
            17 => self.now_ms + draws.below(self.plan.rules.max_ahead_ms + 1),
            // A little too far, or so far that only a wider bound would take it.
            18 => bound_ms + wobble_ms - 1,
            _ => bound_ms + draws.below(200_000),
        }
    }
}
