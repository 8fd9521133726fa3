//! What the budget lane answers about one campaign.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Money;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetDecision {
    Serve,
    /// Serve this many of a thousand impressions, 1 to 999.
    Throttle {
        serve_permille: u16,
    },
    Pause,
}

impl BudgetDecision {
    /// Whether impressions may be served at all.
    pub fn is_positive(self) -> bool {
        self != BudgetDecision::Pause
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAnswer {
    pub campaign_id: CampaignId,
    pub decision: BudgetDecision,
    /// Budget less spend as counted; negative once overspent. `None` if the campaign is not known.
    pub remaining: Option<Money>,
    /// Wall time before which every arrived click is in `remaining`; 0 if nothing is known.
    pub as_of_ms: UnixMillis,
    /// Age of the replica's proof that it is current; `None` if it has no proof.
    pub staleness: Option<Duration>,
    /// Wall time from which the answer means *pause*, wherever it is kept.
    pub expires_at_ms: UnixMillis,
    /// Stable text for logs and for the caller.
    pub reason: &'static str,
}

impl BudgetAnswer {
    /// Whether the answer still permits what it says. A *pause* never expires: it permits nothing.
    pub fn holds_at(&self, now_ms: UnixMillis) -> bool {
        !self.decision.is_positive() || now_ms < self.expires_at_ms
    }
}
