//! The budget lane of this node. Closed for now: every check is answered with *pause*.

use std::sync::Arc;

use clicktally_api::budget_check::{BudgetAnswer, BudgetLane, LaneFailure, close};
use clicktally_proto::clock::Clock;

pub struct BudgetDesk {
    pub clock: Arc<dyn Clock>,
}

#[async_trait::async_trait]
impl BudgetLane for BudgetDesk {
    async fn check(&self, campaigns: Vec<u64>) -> Vec<BudgetAnswer> {
        campaigns.into_iter().map(|id| close(id, LaneFailure::Unreachable, self.clock.now_ms())).collect()
    }
}
