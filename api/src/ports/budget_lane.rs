//! The node's budget lane, as the HTTP interface asks it.

use clicktally_budget::BudgetAnswer;
use clicktally_proto::identity::ids::CampaignId;

/// Decides for campaigns; the node's budget desk is the production one.
#[async_trait::async_trait]
pub trait BudgetLane: Send + Sync {
    /// One answer for each campaign, in the order asked. If the lane takes longer than
    /// [`clicktally_budget::CHECK_DEADLINE`], the caller closes every answer.
    async fn check(&self, campaigns: Vec<CampaignId>) -> Vec<BudgetAnswer>;
}
