//! What a reconciliation found of a day, and when it pages.

use clicktally_database::Day;
use clicktally_database::billing::{DayTotals, NewDifference};
use serde::Serialize;

use super::explain::Cause;

/// Page when more than one in this many of the batch's clicks differs without an explanation.
const UNEXPLAINED_ONE_IN: u64 = 1_000;

/// Clicks of a day, and how many differ for which cause; all absolute numbers, differences of opposite sign do not
/// cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconciliationSummary {
    pub day: Day,
    /// Distinct valid clicks by the batch.
    pub batch_clicks: u64,
    /// The same by the stream, without late ones.
    pub stream_clicks: u64,
    pub billed_clicks: u64,
    pub late: u64,
    pub duplicate: u64,
    pub invalid: u64,
    pub stream_pending: u64,
    pub unexplained: u64,
    pub budget_cap: u64,
    pub unknown_campaign: u64,
    pub currency_changed: u64,
}

impl ReconciliationSummary {
    /// Unexplained beyond 0.1 % of the batch's clicks.
    pub fn pages(&self) -> bool {
        self.unexplained.saturating_mul(UNEXPLAINED_ONE_IN) > self.batch_clicks
    }

    pub(super) fn new(day: Day, totals: DayTotals, differences: &[NewDifference]) -> ReconciliationSummary {
        let sum = |cause: Cause| -> u64 {
            differences
                .iter()
                .filter(|d| d.cause == cause.as_str() && d.scope() == cause.scope())
                .map(|d| d.clicks.unsigned_abs())
                .sum()
        };
        ReconciliationSummary {
            day,
            batch_clicks: totals.batch_clicks,
            stream_clicks: totals.stream_clicks,
            billed_clicks: totals.billed_clicks,
            late: sum(Cause::Late),
            duplicate: sum(Cause::Duplicate),
            invalid: sum(Cause::Invalid),
            stream_pending: sum(Cause::StreamPending),
            unexplained: sum(Cause::Unexplained),
            budget_cap: sum(Cause::BudgetCap),
            unknown_campaign: sum(Cause::UnknownCampaign),
            currency_changed: sum(Cause::CurrencyChanged),
        }
    }
}

/// In the log: as an error if it pages. Nodes show it as metrics (`figures`).
pub(super) fn report(summary: &ReconciliationSummary) {
    let (day, unexplained, batch_clicks) = (summary.day, summary.unexplained, summary.batch_clicks);
    if summary.pages() {
        tracing::error!(%day, unexplained, batch_clicks, "stream and batch differ by more than 0.1 % without a cause: \
            compare billing.reconciliation with the archive before finalising the day");
    } else {
        tracing::info!(%day, unexplained, batch_clicks, late = summary.late, "reconciled");
    }
}
