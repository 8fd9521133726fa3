//! How every failure of the budget lane becomes *pause*.

use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use thiserror::Error;

use crate::answer::{BudgetAnswer, BudgetDecision};

/// An ad server cannot wait longer for a positive answer. After this time the answer is *pause*.
pub const CHECK_DEADLINE: Duration = Duration::from_millis(500);

/// Why the lane has no answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LaneFailure {
    #[error("this node does not know the campaign")]
    UnknownCampaign,
    #[error("the budget lane did not answer in time")]
    Timeout,
    #[error("the budget lane cannot be reached")]
    Unreachable,
    #[error("the budget lane has no room for another campaign")]
    Full,
}

impl LaneFailure {
    pub const ALL: [LaneFailure; 4] =
        [LaneFailure::UnknownCampaign, LaneFailure::Timeout, LaneFailure::Unreachable, LaneFailure::Full];
}

/// Fails closed: whatever failed, the answer is *pause*. It expires at once, so that a caller does not keep it for
/// longer than the failure lasts.
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

/// One answer for each campaign, in the order asked. An answer that is missing, that is for another campaign, or that
/// has expired is closed.
///
/// `now_ms` must be the time of the reply. A process may be stopped after it has decided, and must not hand out a
/// positive answer from before the stop.
pub fn close_missing(campaigns: &[CampaignId], answers: Vec<BudgetAnswer>, now_ms: UnixMillis) -> Vec<BudgetAnswer> {
    let mut answers = answers.into_iter();
    let closed: Vec<BudgetAnswer> = campaigns
        .iter()
        .map(|&campaign| match answers.next() {
            Some(answer) if answer.campaign_id == campaign && answer.holds_at(now_ms) => answer,
            _ => close(campaign, LaneFailure::Timeout, now_ms),
        })
        .collect();
    assert_eq!(closed.len(), campaigns.len(), "every campaign asked about gets exactly one answer");
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(campaign_id: CampaignId, expires_at_ms: UnixMillis) -> BudgetAnswer {
        let closed = close(campaign_id, LaneFailure::Timeout, 5);
        BudgetAnswer { decision: BudgetDecision::Serve, expires_at_ms, ..closed }
    }

    #[test]
    fn every_failure_is_a_pause_that_expires_at_once() {
        let mut reasons = Vec::new();
        for failure in LaneFailure::ALL {
            let answer = close(7, failure, 5);
            assert_eq!(answer.decision, BudgetDecision::Pause, "{failure:?}");
            assert_eq!((answer.expires_at_ms, answer.remaining), (5, None), "{failure:?}");
            reasons.push(answer.reason);
        }
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), LaneFailure::ALL.len(), "each failure has its own reason");
    }

    #[test]
    fn an_answer_that_is_missing_or_for_another_campaign_is_a_pause() {
        let answers = close_missing(&[7, 8], vec![serve(9, 5)], 5);
        assert!(answers.iter().all(|answer| answer.decision == BudgetDecision::Pause));
        assert_eq!(answers.iter().map(|answer| answer.campaign_id).collect::<Vec<_>>(), [7, 8]);
        // The expiry is not what closed it: an answer for another campaign is refused while it still holds.
        assert_eq!(close_missing(&[7], vec![serve(9, 500)], 5)[0].decision, BudgetDecision::Pause);
    }

    #[test]
    fn a_positive_answer_that_expired_on_its_way_is_a_pause() {
        let decided = serve(7, 1_005);
        assert_eq!(close_missing(&[7], vec![decided.clone()], 1_004)[0].decision, BudgetDecision::Serve);
        assert_eq!(close_missing(&[7], vec![decided], 1_005)[0].decision, BudgetDecision::Pause);
    }
}
