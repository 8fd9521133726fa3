//! What stream and batch charge for the same clicks, in millionths of one currency.

use clicktally_proto::money::{Currency, Micros};
use serde::Serialize;

/// `batch − stream = counted + terms_changed ± unexplained`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// What the stream charged for the clicks that it counted.
    pub stream_micros: Micros,
    /// What the batch's clicks cost, before budgets.
    pub batch_micros: Micros,
    /// The part of `batch_micros` that the budgets cover.
    pub billed_micros: Micros,
    /// Clicks that only one side counts, at the price of their time.
    pub counted_micros: Micros,
    /// The same clicks at prices of different times.
    pub terms_changed_micros: Micros,
    /// Without a cause: the sum of all excesses and deficits, so that they do not cancel.
    pub unexplained_micros: Micros,
}

impl Amounts {
    /// `None` on overflow.
    pub fn checked_add(self, other: Amounts) -> Option<Amounts> {
        Some(Amounts {
            stream_micros: self.stream_micros.checked_add(other.stream_micros)?,
            batch_micros: self.batch_micros.checked_add(other.batch_micros)?,
            billed_micros: self.billed_micros.checked_add(other.billed_micros)?,
            counted_micros: self.counted_micros.checked_add(other.counted_micros)?,
            terms_changed_micros: self.terms_changed_micros.checked_add(other.terms_changed_micros)?,
            unexplained_micros: self.unexplained_micros.checked_add(other.unexplained_micros)?,
        })
    }
}

/// A row of `billing.reconciled_amount`: one campaign on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignAmounts {
    pub campaign_id: i64,
    /// `None` for a campaign without terms, which nothing may be charged for.
    pub currency: Option<Currency>,
    pub amounts: Amounts,
}

/// All campaigns of a day in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CurrencyAmounts {
    /// `None` for campaigns without terms.
    pub currency: Option<Currency>,
    #[serde(flatten)]
    pub amounts: Amounts,
}
