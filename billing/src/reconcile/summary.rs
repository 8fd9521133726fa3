//! What a reconciliation found of a day, and when it pages.

use std::collections::BTreeSet;

use clicktally_database::Day;
use clicktally_database::billing::{Amounts, CampaignAmounts, CurrencyAmounts, DayTotals, NewDifference};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Currency;
use serde::Serialize;

use super::explain::Cause;
use crate::error::BillingError;

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
    /// Campaigns whose amounts differ without a cause: see `billing.reconciled_amount`.
    pub unexplained_amounts: u64,
    /// By currency.
    pub amounts: Vec<CurrencyAmounts>,
}

/// The amounts of all campaigns in one currency.
fn totals_in(currency: Option<Currency>, campaigns: &[CampaignAmounts]) -> Result<CurrencyAmounts, BillingError> {
    let of_currency = campaigns.iter().filter(|row| row.currency == currency || is_broken(Mutant::CurrenciesAdded));
    let total = of_currency.map(|row| row.amounts).try_fold(Amounts::default(), Amounts::checked_add);
    let amounts = total.ok_or(BillingError::Overflow("the amounts of a day"))?;
    Ok(CurrencyAmounts { currency, amounts })
}

/// Unexplained beyond 0.1 % of the batch's amount.
fn amounts_page(of_currency: &CurrencyAmounts) -> bool {
    let CurrencyAmounts { amounts, .. } = of_currency;
    i128::from(amounts.unexplained_micros) * i128::from(UNEXPLAINED_ONE_IN) > i128::from(amounts.batch_micros)
}

impl ReconciliationSummary {
    /// Unexplained beyond 0.1 % of the batch's clicks, or of its amounts in some currency.
    pub fn pages(&self) -> bool {
        let is_miscounted = self.unexplained.saturating_mul(UNEXPLAINED_ONE_IN) > self.batch_clicks;
        is_miscounted || (self.amounts.iter().any(amounts_page) && !is_broken(Mutant::AmountsUncompared))
    }

    pub(super) fn new(
        day: Day,
        totals: DayTotals,
        differences: &[NewDifference],
        amounts: &[CampaignAmounts],
    ) -> Result<ReconciliationSummary, BillingError> {
        let sum = |cause: Cause| -> u64 {
            differences
                .iter()
                .filter(|d| d.cause == cause.as_str() && d.scope() == cause.scope())
                .map(|d| d.clicks.unsigned_abs())
                .sum()
        };
        let currencies: BTreeSet<Option<Currency>> = amounts.iter().map(|row| row.currency).collect();
        Ok(ReconciliationSummary {
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
            unexplained_amounts: amounts.iter().filter(|row| row.amounts.unexplained_micros > 0).count() as u64,
            amounts: currencies.into_iter().map(|currency| totals_in(currency, amounts)).collect::<Result<_, _>>()?,
        })
    }
}

/// In the log: as an error if it pages. Nodes show it as metrics (`figures`).
pub(super) fn report(summary: &ReconciliationSummary) {
    let (day, unexplained, batch_clicks) = (summary.day, summary.unexplained, summary.batch_clicks);
    if summary.pages() {
        let campaigns = summary.unexplained_amounts;
        tracing::error!(%day, unexplained, batch_clicks, campaigns, "stream and batch differ by more than 0.1 % without a \
            cause: compare billing.reconciliation and billing.reconciled_amount with the archive and the terms before \
            finalising the day");
    } else {
        tracing::info!(%day, unexplained, batch_clicks, late = summary.late, "reconciled");
    }
}
