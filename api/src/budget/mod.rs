//! The budget lane: "may I show this campaign?", answered before every impression, fail closed.
//!
//! *Reads* the answers of a [`BudgetLane`]. *Promises*: every positive answer expires; unknown, unreachable and too slow all
//! become *pause*, in [`answer::close`] and nowhere else.

pub mod answer;
pub mod post_check;

pub use answer::{BudgetAnswer, BudgetDecision, LaneFailure, close};

use clicktally_proto::identity::ids::CampaignId;

/// Decides for campaigns; the node's budget desk is the production one.
#[async_trait::async_trait]
pub trait BudgetLane: Send + Sync {
    /// One answer for each campaign asked, in the same order. Should come within [`post_check::CHECK_DEADLINE`]; where it does
    /// not, all of them are closed.
    async fn check(&self, campaigns: Vec<CampaignId>) -> Vec<BudgetAnswer>;
}
