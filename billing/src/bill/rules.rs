//! Which clicks of a campaign-day are billed. Pure: usage, terms and what other days took of the budget go in.

use std::collections::BTreeMap;

use clicktally_database::billing::Usage;
use clicktally_proto::money::{Micros, price_of};

use super::terms::TermsTimeline;
use crate::error::BillingError;

/// Why valid clicks are not billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnbilledCause {
    BudgetCap,
    UnknownCampaign,
    /// The terms they fell under are in another currency than the newest ones: no budget can be compared with them.
    CurrencyChanged,
}

impl UnbilledCause {
    pub fn as_str(self) -> &'static str {
        match self {
            UnbilledCause::BudgetCap => "budget_cap",
            UnbilledCause::UnknownCampaign => "unknown_campaign",
            UnbilledCause::CurrencyChanged => "currency_changed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BilledUsage {
    pub usage: Usage,
    /// At most `usage.clicks`; the cause is set exactly when it is less.
    pub billed_clicks: u64,
    pub amount_micros: Micros,
    pub unbilled_cause: Option<UnbilledCause>,
}

/// Bills whole clicks, terms in order of revision, while the campaign's budget (of its newest terms) lasts.
///
/// `billed_elsewhere` is what documents of all *other* days bill each campaign: so `billed ≤ budget` holds over all
/// days in whatever order they are run, and a rerun of one gives the same again.
///
/// # Errors
/// `Overflow` when a click count times a price does.
pub fn bill(
    usages: &[Usage],
    terms: &TermsTimeline,
    billed_elsewhere: &BTreeMap<i64, Micros>,
) -> Result<Vec<BilledUsage>, BillingError> {
    let mut sorted = usages.to_vec();
    sorted.sort_unstable_by_key(|usage| (usage.campaign_id, usage.terms_revision));
    let mut billed = Vec::with_capacity(sorted.len());
    for campaign in sorted.chunk_by(|a, b| a.campaign_id == b.campaign_id) {
        let campaign_id = campaign[0].campaign_id;
        let budget_micros = terms.newest(campaign_id).map_or(0, |newest| newest.budget_micros);
        let elsewhere = billed_elsewhere.get(&campaign_id).copied().unwrap_or(0);
        // Below zero where the budget was lowered under what other days billed already: nothing is left.
        assert!(elsewhere >= 0, "documents of other days bill nothing or something, or the budget would grow");
        let mut left_micros = budget_micros.saturating_sub(elsewhere).max(0);
        for usage in campaign {
            let result = bill_one(*usage, terms, left_micros)?;
            left_micros -= result.amount_micros;
            assert!(left_micros >= 0, "a campaign is never billed beyond its budget");
            billed.push(result);
        }
    }
    Ok(billed)
}

fn bill_one(usage: Usage, terms: &TermsTimeline, left_micros: Micros) -> Result<BilledUsage, BillingError> {
    let refused = |cause| BilledUsage {
        usage,
        billed_clicks: 0,
        amount_micros: 0,
        unbilled_cause: (usage.clicks > 0).then_some(cause),
    };
    let (Some(agreed), Some(newest)) =
        (terms.get(usage.campaign_id, usage.terms_revision), terms.newest(usage.campaign_id))
    else {
        return Ok(refused(UnbilledCause::UnknownCampaign));
    };
    if agreed.currency != newest.currency {
        return Ok(refused(UnbilledCause::CurrencyChanged));
    }
    assert!(agreed.cost_per_click_micros >= 0, "terms are read with a price of zero or more");
    // Free clicks are always within the budget.
    let affordable = left_micros.checked_div(agreed.cost_per_click_micros).map_or(u64::MAX, i64::unsigned_abs);
    let billed_clicks = usage.clicks.min(affordable);
    let amount_micros =
        price_of(billed_clicks, agreed.cost_per_click_micros).ok_or(BillingError::Overflow("an amount"))?;
    Ok(BilledUsage {
        usage,
        billed_clicks,
        amount_micros,
        unbilled_cause: (billed_clicks < usage.clicks).then_some(UnbilledCause::BudgetCap),
    })
}

#[cfg(test)]
mod tests {
    use clicktally_database::catalog::Terms;
    use clicktally_proto::money::Currency;
    use proptest::prelude::*;

    use super::*;

    fn terms(revision: i64, price: i64, budget: i64) -> Terms {
        Terms {
            campaign_id: 1,
            revision,
            advertiser_id: 9,
            name: "shoes".to_owned(),
            currency: Currency::USD,
            cost_per_click_micros: price,
            budget_micros: budget,
            effective_from_ms: 0,
        }
    }

    fn usage(terms_revision: i64, clicks: u64) -> Usage {
        Usage { campaign_id: 1, terms_revision, clicks, invalid_clicks: 0 }
    }

    #[test]
    fn what_the_budget_does_not_cover_is_given_away_in_whole_clicks_and_named() {
        let timeline = TermsTimeline::new([terms(1, 300, 1_000)]);
        let billed = bill(&[usage(1, 5)], &timeline, &BTreeMap::new()).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].amount_micros), (3, 900));
        assert_eq!(billed[0].unbilled_cause, Some(UnbilledCause::BudgetCap));
        // Other days left 350: one click more would cost 600.
        let billed = bill(&[usage(1, 5)], &timeline, &BTreeMap::from([(1, 650)])).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].amount_micros), (1, 300));
    }

    #[test]
    fn clicks_of_a_campaign_without_terms_are_not_billable_and_shown_so() {
        let billed = bill(&[usage(0, 5)], &TermsTimeline::default(), &BTreeMap::new()).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].unbilled_cause), (0, Some(UnbilledCause::UnknownCampaign)));
    }

    #[test]
    fn terms_in_a_currency_since_left_are_not_billed_against_the_new_budget() {
        let euro = Currency::try_from("EUR".to_owned()).unwrap();
        let timeline = TermsTimeline::new([terms(1, 1, 100), Terms { currency: euro, ..terms(2, 1, 100) }]);
        let billed = bill(&[usage(1, 5), usage(2, 5)], &timeline, &BTreeMap::new()).unwrap();
        assert_eq!(billed[0].unbilled_cause, Some(UnbilledCause::CurrencyChanged));
        assert_eq!(billed[1].billed_clicks, 5);
    }

    #[test]
    fn a_price_that_overflows_is_an_error_not_a_wrong_amount() {
        let timeline = TermsTimeline::new([terms(1, 0, 0)]);
        assert_eq!(bill(&[usage(1, u64::MAX)], &timeline, &BTreeMap::new()).ok(), None);
    }

    proptest! {
        #[test]
        fn no_campaign_is_ever_billed_beyond_its_budget(
            budget in 0_i64..1_000_000, elsewhere in 0_i64..1_500_000,
            prices in proptest::collection::vec(0_i64..5_000, 1..4), clicks in 0_u64..1_000) {
            let timeline = TermsTimeline::new((1..).zip(&prices).map(|(revision, price)| terms(revision, *price, budget)));
            let usages: Vec<Usage> = (1..).zip(&prices).map(|(revision, _)| usage(revision, clicks)).collect();
            let billed = bill(&usages, &timeline, &BTreeMap::from([(1, elsewhere)])).unwrap();
            let total: i64 = billed.iter().map(|b| b.amount_micros).sum();
            prop_assert!(total <= (budget - elsewhere).max(0));
            for b in &billed {
                prop_assert_eq!(b.unbilled_cause.is_some(), b.billed_clicks < b.usage.clicks);
            }
        }
    }
}
