//! What the budget lane says of one campaign, and the one function that turns a failure into *pause*.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::money::Money;
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetDecision {
    Serve,
    /// Serve this many of a thousand impressions.
    Throttle {
        serve_permille: u16,
    },
    Pause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAnswer {
    pub campaign_id: CampaignId,
    pub decision: BudgetDecision,
    /// Budget less spend as counted; negative once overspent. `None` where the campaign is not known.
    pub remaining: Option<Money>,
    /// Wall time before which every arrived click is in `remaining`; 0 where nothing is known.
    pub as_of_ms: UnixMillis,
    /// Age of the replica's proof of being current; `None` where it has none.
    pub staleness: Option<Duration>,
    /// Wall time at which the answer turns into *pause*, wherever it is kept.
    pub expires_at_ms: UnixMillis,
    pub reason: &'static str,
}

/// Why the lane has no answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LaneFailure {
    #[error("the campaign is not known here")]
    UnknownCampaign,
    #[error("the budget lane did not answer in time")]
    Timeout,
    #[error("the budget lane cannot be reached")]
    Unreachable,
    #[error("the budget lane is full")]
    Full,
}

/// Fails closed: whatever went wrong, the answer is *pause*. It expires at once, so that nobody keeps it for longer than
/// the failure lasts.
pub fn close(campaign_id: CampaignId, failure: LaneFailure, now_ms: UnixMillis) -> BudgetAnswer {
    let reason = match failure {
        LaneFailure::UnknownCampaign => "unknown_campaign",
        LaneFailure::Timeout => "timeout",
        LaneFailure::Unreachable => "unreachable",
        LaneFailure::Full => "overloaded",
    };
    BudgetAnswer {
        campaign_id,
        decision: BudgetDecision::Pause,
        remaining: None,
        as_of_ms: 0,
        staleness: None,
        expires_at_ms: now_ms,
        reason,
    }
}

/// As it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetAnswerBody {
    pub campaign_id: CampaignId,
    /// serve, throttle or pause.
    pub decision: &'static str,
    /// With throttle: how many of a thousand impressions to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve_permille: Option<u16>,
    #[schema(value_type = Option<crate::catalogue::campaign_body::MoneyBody>)]
    pub remaining: Option<Money>,
    pub as_of: Option<String>,
    pub staleness_ms: Option<u64>,
    /// From here on the answer means pause.
    pub expires_at: String,
    pub reason: &'static str,
}
