//! What a seed decides before the run: campaigns, rules, and how much goes wrong.

use clicktally_billing::Day;
use clicktally_proto::event_time::{EventTimeRules, UnixMillis};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Currency;

use crate::simulation::random::Seed;

/// The first of the simulated days: 2026-11-23.
const FIRST_DAY_MS: UnixMillis = 1_795_392_000_000;
const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
pub(super) struct PlannedCampaign {
    pub(super) campaign_id: CampaignId,
    pub(super) advertiser_id: u64,
    /// It never changes (`api/src/catalogue/campaigns.rs`).
    pub(super) currency: Currency,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) groups: u16,
    pub(super) rules: EventTimeRules,
    pub(super) campaigns: Vec<PlannedCampaign>,
    pub(super) days: Vec<Day>,
    /// Things that happen before the story is brought to its end.
    pub(super) steps: u64,
    /// Rows get lost in PostgreSQL, and the stream miscounts.
    pub(super) has_faults: bool,
}

impl Plan {
    pub(super) fn draw(seed: Seed) -> Plan {
        let mut random = seed.stream("billing plan");
        let currencies = ["USD", "JPY", "EUR"].map(|code| Currency::try_from(code.to_owned()).expect("a currency"));
        let campaigns = 2 + random.below(4);
        let advertisers = 1 + random.below(3);
        let campaign = |campaign_id| {
            let currency = *random.pick(&currencies).expect("there are currencies");
            PlannedCampaign { campaign_id, advertiser_id: 1 + random.below(advertisers), currency }
        };
        let campaigns = (1..=campaigns).map(campaign).collect();
        let max_ahead_ms = *random.pick(&[30_000, 60_000, 300_000]).expect("there are bounds");
        Plan {
            groups: *random.pick(&[1, 1, 2, 4]).expect("there are sizes"),
            rules: EventTimeRules { max_ahead_ms, ..EventTimeRules::default() },
            campaigns,
            days: (0..=random.below(3)).filter_map(|day| Day::of(FIRST_DAY_MS + day * 24 * HOUR_MS)).collect(),
            steps: random.between(40, 160),
            has_faults: random.permille(400),
        }
    }

    pub(super) fn begins_ms(&self) -> UnixMillis {
        FIRST_DAY_MS
    }

    pub(super) fn ends_ms(&self) -> UnixMillis {
        self.days.last().map_or(FIRST_DAY_MS, |day| day.end_ms())
    }

    /// After this time past its end, a day gets no clicks that the stream counts.
    pub(super) fn lateness_ms(&self) -> u64 {
        self.rules.allowed_lateness_ms + self.rules.out_of_orderness_ms
    }
}
