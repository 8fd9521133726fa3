//! Which clicks of a campaign-day are billed. Pure: usage, terms and what other days took of the budget go in.
//!
//! Terms *and* budget apply as of the click. A click is billed while everything billed up to it fits into the budget of
//! its own terms. So a budget that is lowered later takes nothing back, as the stream takes nothing back, and a budget
//! that is raised later pays for no earlier click.
//!
//! A click is billed in the currency of the terms it fell under, whatever terms came later. A campaign's currency
//! cannot change any more (`api/src/catalogue/campaigns.rs`), but the catalogue may hold terms from before that rule.
//! A run that failed for such a campaign could never succeed again, and one that did not bill them would refund what is
//! invoiced already. So each currency of a campaign has a budget of its own, and no sum mixes two.

use std::collections::BTreeMap;

use clicktally_database::billing::{BilledByCampaign, BilledElsewhere, Usage};
use clicktally_database::catalog::Terms;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::limits::BUDGET_MICROS_MAX;
use clicktally_proto::money::{Currency, Micros, price_of};

use super::terms::TermsTimeline;
use crate::error::BillingError;

/// Why valid clicks are not billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnbilledCause {
    BudgetCap,
    UnknownCampaign,
}

impl UnbilledCause {
    pub fn as_str(self) -> &'static str {
        match self {
            UnbilledCause::BudgetCap => "budget_cap",
            UnbilledCause::UnknownCampaign => "unknown_campaign",
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

/// Bills whole clicks, terms in order of revision, while the budget of their own terms lasts.
///
/// `billed_elsewhere` is what documents of all *other* days bill each campaign. What later days billed fits into their
/// budgets after this day, too. So `billed ≤ budget, as of each click` holds over all days in whatever order they are
/// run, and a rerun of one gives the same again.
///
/// # Errors
/// `Overflow` when a click count times a price does.
pub fn bill(
    usages: &[Usage],
    terms: &TermsTimeline,
    billed_elsewhere: &BilledByCampaign,
) -> Result<Vec<BilledUsage>, BillingError> {
    let mut sorted = usages.to_vec();
    sorted.sort_unstable_by_key(|usage| (usage.campaign_id, usage.terms_revision));
    let mut billed_here: BTreeMap<(i64, Currency), Micros> = BTreeMap::new();
    let mut billed = Vec::with_capacity(sorted.len());
    for usage in sorted {
        let Some(agreed) = terms.get(usage.campaign_id, usage.terms_revision) else {
            let unbilled_cause = (usage.clicks > 0).then_some(UnbilledCause::UnknownCampaign);
            billed.push(BilledUsage { usage, billed_clicks: 0, amount_micros: 0, unbilled_cause });
            continue;
        };
        let budget = (usage.campaign_id, agreed.currency);
        let here_micros = billed_here.entry(budget).or_insert(0);
        let elsewhere = billed_elsewhere.get(&budget);
        let elsewhere = elsewhere.filter(|_| !is_broken(Mutant::BudgetPerDay));
        let left_micros = budget_left(agreed, terms, elsewhere, *here_micros);
        let result = bill_one(usage, agreed.cost_per_click_micros, left_micros)?;
        assert!(result.amount_micros <= left_micros, "a click is never billed beyond the budget of its terms");
        *here_micros = here_micros.checked_add(result.amount_micros).ok_or(BillingError::Overflow("an amount"))?;
        billed.push(result);
    }
    Ok(billed)
}

/// Terms from before budgets had a bound must not make the sums of other campaigns overflow.
fn budget_of(terms: &Terms) -> Micros {
    terms.budget_micros.min(BUDGET_MICROS_MAX)
}

/// What a click under `agreed` may cost, after everything that was billed before it.
fn budget_left(
    agreed: &Terms,
    terms: &TermsTimeline,
    elsewhere: Option<&BilledElsewhere>,
    here_micros: Micros,
) -> Micros {
    let (earlier_micros, later) = elsewhere.map_or((0, &[][..]), |billed| (billed.earlier_micros, &billed.later));
    assert!(earlier_micros >= 0, "documents of other days bill nothing or something, or the budget would grow");
    let mut billed_micros = earlier_micros.saturating_add(here_micros);
    let in_force = if is_broken(Mutant::RerunRefunds) { terms.newest(agreed.campaign_id) } else { Some(agreed) };
    let mut left_micros = in_force.map_or(0, budget_of).saturating_sub(billed_micros);
    for (revision, amount_micros) in later.iter().filter(|(_, amount_micros)| *amount_micros > 0) {
        billed_micros = billed_micros.saturating_add(*amount_micros);
        // A revision that the catalogue has lost leaves no room.
        let budget_micros = terms.get(agreed.campaign_id, *revision).map_or(0, budget_of);
        left_micros = left_micros.min(budget_micros.saturating_sub(billed_micros));
    }
    // Below zero where the budget was lowered under what was billed already: nothing is left.
    left_micros.max(0)
}

fn bill_one(usage: Usage, price_micros: Micros, left_micros: Micros) -> Result<BilledUsage, BillingError> {
    assert!(price_micros >= 0, "terms are read with a price of zero or more");
    // Free clicks are always within the budget.
    let affordable = left_micros.checked_div(price_micros).map_or(u64::MAX, i64::unsigned_abs);
    let billed_clicks = usage.clicks.min(affordable);
    let amount_micros = price_of(billed_clicks, price_micros).ok_or(BillingError::Overflow("an amount"))?;
    let unbilled_cause = (billed_clicks < usage.clicks).then_some(UnbilledCause::BudgetCap);
    Ok(BilledUsage { usage, billed_clicks, amount_micros, unbilled_cause })
}

#[cfg(test)]
mod tests {
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

    fn billed_before(earlier_micros: i64) -> BilledElsewhere {
        BilledElsewhere { earlier_micros, later: Vec::new() }
    }

    fn earlier(earlier_micros: i64) -> BilledByCampaign {
        BTreeMap::from([((1, Currency::USD), billed_before(earlier_micros))])
    }

    fn amounts(usages: &[Usage], timeline: &TermsTimeline, elsewhere: &BilledByCampaign) -> Vec<i64> {
        bill(usages, timeline, elsewhere).unwrap().iter().map(|billed| billed.amount_micros).collect()
    }

    #[test]
    fn a_budget_applies_as_of_the_click() {
        let timeline = TermsTimeline::new([terms(1, 100, 1_000), terms(2, 100, 500), terms(3, 100, 1_200)]);
        // Lowered under what was billed: nothing is taken back, and nothing more is billed before it is raised.
        assert_eq!(amounts(&[usage(1, 8), usage(2, 3), usage(3, 9)], &timeline, &earlier(0)), [800, 0, 400]);
        // The same, on days of their own.
        assert_eq!(amounts(&[usage(2, 3)], &timeline, &earlier(800)), [0]);
        assert_eq!(amounts(&[usage(3, 9)], &timeline, &earlier(800)), [400]);
        // A raised budget pays for no earlier click.
        assert_eq!(amounts(&[usage(2, 9), usage(3, 1)], &timeline, &earlier(0)), [500, 100]);
    }

    #[test]
    fn a_day_that_is_run_after_a_later_one_leaves_that_one_its_budget() {
        let timeline = TermsTimeline::new([terms(1, 100, 1_000), terms(2, 100, 500), terms(3, 100, 2_000)]);
        let later = |later: &[(i64, i64)]| {
            let billed = BilledElsewhere { earlier_micros: 0, later: later.to_vec() };
            BTreeMap::from([((1, Currency::USD), billed)])
        };
        assert_eq!(amounts(&[usage(1, 9)], &timeline, &later(&[(2, 400)])), [100], "500 were agreed on the later day");
        assert_eq!(amounts(&[usage(1, 9)], &timeline, &later(&[(2, 0), (3, 1_500)])), [500], "and 2,000 after it");
        assert_eq!(amounts(&[usage(1, 9)], &timeline, &later(&[(7, 1)])), [0], "terms that are not there any more");
    }

    #[test]
    fn what_the_budget_does_not_cover_is_given_away_in_whole_clicks_and_named() {
        let timeline = TermsTimeline::new([terms(1, 300, 1_000)]);
        let billed = bill(&[usage(1, 5)], &timeline, &BTreeMap::new()).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].amount_micros), (3, 900));
        assert_eq!(billed[0].unbilled_cause, Some(UnbilledCause::BudgetCap));
        // Other days left 350: one click more would cost 600.
        let billed = bill(&[usage(1, 5)], &timeline, &earlier(650)).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].amount_micros), (1, 300));
    }

    #[test]
    fn clicks_of_a_campaign_without_terms_are_not_billable_and_shown_so() {
        let billed = bill(&[usage(0, 5)], &TermsTimeline::default(), &BTreeMap::new()).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].unbilled_cause), (0, Some(UnbilledCause::UnknownCampaign)));
    }

    #[test]
    fn terms_in_a_currency_since_left_are_billed_in_it_and_against_their_own_budget() {
        let euro = Currency::try_from("EUR".to_owned()).unwrap();
        let in_euro = |revision| Terms { currency: euro, ..terms(revision, 1, 100) };
        let timeline = TermsTimeline::new([terms(1, 10, 100), terms(2, 10, 70), in_euro(3)]);
        let usages = [usage(1, 5), usage(2, 5), usage(3, 5)];
        let elsewhere = BTreeMap::from([((1, euro), billed_before(98)), ((1, Currency::USD), billed_before(0))]);
        let billed = bill(&usages, &timeline, &elsewhere).unwrap();
        // Seven of ten clicks in dollars, and the euros that other days billed leave room for two clicks.
        assert_eq!(billed.iter().map(|b| b.billed_clicks).collect::<Vec<_>>(), [5, 2, 2]);
        assert_eq!(billed.iter().map(|b| b.amount_micros).collect::<Vec<_>>(), [50, 20, 2]);
    }

    #[test]
    fn no_budget_is_larger_than_its_bound_whatever_old_terms_say() {
        let timeline = TermsTimeline::new([terms(1, BUDGET_MICROS_MAX / 2, i64::MAX)]);
        let billed = bill(&[usage(1, 5)], &timeline, &BTreeMap::new()).unwrap();
        assert_eq!((billed[0].billed_clicks, billed[0].amount_micros), (2, BUDGET_MICROS_MAX));
        let timeline = TermsTimeline::new([terms(1, 5_000_000_000_000_000_000, i64::MAX)]);
        assert_eq!(bill(&[usage(1, 5)], &timeline, &BTreeMap::new()).unwrap()[0].billed_clicks, 0);
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
            let billed = bill(&usages, &timeline, &earlier(elsewhere)).unwrap();
            let total: i64 = billed.iter().map(|b| b.amount_micros).sum();
            prop_assert!(total <= (budget - elsewhere).max(0));
            for b in &billed {
                prop_assert_eq!(b.unbilled_cause.is_some(), b.billed_clicks < b.usage.clicks);
            }
        }
    }
}
