//! Whether amounts are what the terms allow, campaign by campaign. Pure.
//!
//! Stream and batch price the same clicks by different clocks. The stream takes the price in force when it counts, so
//! the order of the replicated log decides: terms of a higher revision than a window's newest change have priced none
//! of its clicks. The batch takes the price in force at the time of the click. Where the terms leave one price, an
//! amount must be exactly clicks × price. Where terms change nearby, it must lie between what the possible prices make
//! of the clicks. What lies outside has no cause: terms that never reached PostgreSQL, or a mistake of either side.
//!
//! This module looks at the terms in its own way, and not through the intervals that the batch bills by.

use clicktally_database::billing::{Amounts, BatchAmounts, CampaignAmounts, PricedClicks};
use clicktally_database::catalog::Terms;
use clicktally_proto::event_time::{Minute, UnixMillis};
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::money::Micros;

use crate::error::BillingError;

/// How much the clocks of the nodes and of the log may differ. Terms carry a node's time.
const CLOCKS_DIFFER_MS: u64 = 60_000;

/// The lowest and the highest possible price, or the amounts that they make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: i128,
    high: i128,
}

impl Range {
    fn of(prices: impl Iterator<Item = Micros>) -> Range {
        prices.map(i128::from).fold(Range { low: i128::MAX, high: 0 }, |range, price| Range {
            low: range.low.min(price),
            high: range.high.max(price),
        })
    }

    fn times(self, clicks: i64) -> Range {
        Range { low: self.low * i128::from(clicks), high: self.high * i128::from(clicks) }
    }

    /// Below zero for an amount that is too low.
    fn excess(self, amount: i128) -> i128 {
        (amount - self.high).max(0) + (amount - self.low).min(0)
    }
}

/// Compares one campaign's amounts with what its terms allow. `None` for a campaign whose currency changed, which only
/// older builds allowed: the stream's spend has no currency of its own.
///
/// `terms` are all of the campaign, in any order; `clicks` its day, by minute.
///
/// # Errors
/// `Overflow`.
pub(super) fn compare(
    campaign_id: i64,
    terms: &[&Terms],
    clicks: &[PricedClicks],
    batch: BatchAmounts,
    max_ahead_ms: u64,
) -> Result<Option<CampaignAmounts>, BillingError> {
    assert!(terms.iter().all(|terms| terms.campaign_id == campaign_id), "a campaign is priced by its own terms");
    let currency = terms.first().map(|terms| terms.currency);
    if terms.iter().any(|terms| Some(terms.currency) != currency) {
        return Ok(None);
    }
    let BatchAmounts { cost_micros: batch_micros, billed_micros } = batch;
    let mut by_revision = terms.to_vec();
    by_revision.sort_unstable_by_key(|terms| terms.revision);
    let mut possible = Range { low: 0, high: 0 };
    let (mut stream, mut counted, mut excess, mut unexplained) = (0, 0, 0, 0);
    for row in clicks {
        let spend = i128::from(row.stream_micros);
        let charged_too_much = stream_prices(&by_revision, row, max_ahead_ms).times(row.stream_clicks).excess(spend);
        let at_its_time = batch_prices(&by_revision, row.minute);
        let of_batch = at_its_time.times(row.batch_clicks);
        possible = Range { low: possible.low + of_batch.low, high: possible.high + of_batch.high };
        stream += spend;
        counted += i128::from(row.batch_clicks - row.stream_clicks) * at_its_time.low;
        excess -= charged_too_much;
        unexplained += if is_broken(Mutant::AmountsCancel) { charged_too_much } else { charged_too_much.abs() };
    }
    let billed_too_much = possible.excess(i128::from(batch_micros));
    let difference = i128::from(batch_micros) - stream;
    let in_micros = |amount: i128| Micros::try_from(amount).map_err(|_| BillingError::Overflow("an amount"));
    let amounts = Amounts {
        stream_micros: in_micros(stream)?,
        batch_micros,
        billed_micros,
        counted_micros: in_micros(counted)?,
        terms_changed_micros: in_micros(difference - counted - excess - billed_too_much)?,
        unexplained_micros: in_micros(unexplained + billed_too_much.abs())?,
    };
    Ok(Some(CampaignAmounts { campaign_id, currency, amounts }))
}

/// What the stream may have charged for a click of the row.
fn stream_prices(by_revision: &[&Terms], row: &PricedClicks, max_ahead_ms: u64) -> Range {
    let known: Vec<&&Terms> = by_revision.iter().filter(|terms| terms.revision <= row.newest_revision).collect();
    // A click is counted after it arrives, and arrives at most `max_ahead_ms` before its own time.
    let earliest_ms = row.minute.start_ms().saturating_sub(max_ahead_ms.saturating_add(CLOCKS_DIFFER_MS));
    let may_be_counted_before = |at_ms: UnixMillis| at_ms >= earliest_ms;
    let successors = known.iter().skip(1).map(|terms| Some(terms.effective_from_ms)).chain([None]);
    let in_force =
        known.iter().zip(successors).filter(|(_, replaced_at)| replaced_at.is_none_or(may_be_counted_before));
    // Before a campaign has terms, nothing is charged.
    let unpriced = known.first().is_none_or(|first| may_be_counted_before(first.effective_from_ms)).then_some(0);
    Range::of(in_force.map(|(terms, _)| terms.cost_per_click_micros).chain(unpriced))
}

/// What the batch may bill for a click of the minute, by the click's time: the newest terms in force, or the first.
fn batch_prices(by_revision: &[&Terms], minute: Minute) -> Range {
    let begun: Vec<&&Terms> = by_revision.iter().filter(|terms| terms.effective_from_ms <= minute.start_ms()).collect();
    let at_start = begun.last().map_or(i64::MIN, |terms| terms.revision);
    let during = by_revision.iter().filter(|terms| {
        terms.effective_from_ms > minute.start_ms()
            && terms.effective_from_ms < minute.end_ms()
            && terms.revision > at_start
    });
    let prices = begun.last().into_iter().copied().chain(during).map(|terms| terms.cost_per_click_micros);
    if !begun.is_empty() {
        return Range::of(prices);
    }
    // Clicks from before the first terms fall under them, or under none if they arrived before them as well.
    let first = by_revision.iter().min_by_key(|terms| (terms.effective_from_ms, -terms.revision));
    Range::of(prices.chain(first.map(|terms| terms.cost_per_click_micros)).chain([0]))
}

#[cfg(test)]
mod tests {
    use clicktally_proto::money::Currency;

    use super::*;

    const MAX_AHEAD_MS: u64 = 300_000;
    const BASE: Minute = Minute(1_000);

    /// In force `minutes` after the base.
    fn terms(revision: i64, minutes: u64, price: Micros) -> Terms {
        Terms {
            campaign_id: 7,
            revision,
            advertiser_id: 1,
            name: String::new(),
            currency: Currency::USD,
            cost_per_click_micros: price,
            budget_micros: 1_000_000,
            effective_from_ms: BASE.start_ms() + minutes * 60_000,
        }
    }

    /// Counted by both, `minutes` after the base.
    fn row(minutes: u32, clicks: i64, stream_micros: Micros, newest_revision: i64) -> PricedClicks {
        let minute = Minute(BASE.0 + minutes);
        PricedClicks {
            campaign_id: 7,
            minute,
            batch_clicks: clicks,
            stream_clicks: clicks,
            stream_micros,
            newest_revision,
        }
    }

    fn compared(terms: &[Terms], rows: &[PricedClicks], batch_micros: Micros) -> Amounts {
        let terms: Vec<&Terms> = terms.iter().collect();
        let batch = BatchAmounts { cost_micros: batch_micros, billed_micros: 0 };
        let CampaignAmounts { currency, amounts: found, .. } =
            compare(7, &terms, rows, batch, MAX_AHEAD_MS).unwrap().unwrap();
        assert_eq!(currency, terms.first().map(|terms| terms.currency));
        let difference = found.batch_micros - found.stream_micros - found.counted_micros - found.terms_changed_micros;
        assert!(difference.abs() <= found.unexplained_micros, "the causes explain the whole difference: {found:?}");
        found
    }

    fn unexplained(terms: &[Terms], rows: &[PricedClicks], batch_micros: Micros) -> Micros {
        compared(terms, rows, batch_micros).unexplained_micros
    }

    #[test]
    fn one_price_must_hold_to_the_micro_on_both_sides() {
        let terms = [terms(3, 0, 100)];
        assert_eq!(unexplained(&terms, &[row(60, 8, 800, 50)], 800), 0);
        assert_eq!(unexplained(&terms, &[row(60, 8, 801, 50)], 800), 1);
        assert_eq!(unexplained(&terms, &[row(60, 8, 800, 50)], 700), 100);
        // An excess of one window does not hide the deficit of another.
        assert_eq!(unexplained(&terms, &[row(60, 8, 801, 50), row(61, 8, 799, 51)], 1_600), 2);
    }

    #[test]
    fn clicks_that_one_side_counts_explain_their_own_price() {
        let late = PricedClicks { stream_clicks: 7, stream_micros: 700, ..row(60, 8, 0, 50) };
        let found = compared(&[terms(3, 0, 100)], &[late], 800);
        assert_eq!((found.counted_micros, found.terms_changed_micros, found.unexplained_micros), (100, 0, 0));
    }

    #[test]
    fn terms_that_never_arrived_have_no_cause_although_newer_ones_explain_a_change() {
        // 5.00, then 3.00, which PostgreSQL never got, then 2.00: issue 16.
        let known = [terms(10, 0, 500), terms(30, 120, 200)];
        let while_lost = row(60, 100, 30_000, 25);
        assert_eq!(unexplained(&known, &[while_lost], 50_000), 20_000);
        let with_all = [terms(10, 0, 500), terms(20, 50, 300), terms(30, 120, 200)];
        assert_eq!(unexplained(&with_all, &[while_lost], 30_000), 0);
        assert_eq!(unexplained(&with_all, &[while_lost], 50_000), 20_000, "the batch used the wrong interval");
    }

    #[test]
    fn a_click_from_before_a_change_that_is_counted_after_it_is_explained_by_it() {
        let terms = [terms(10, 0, 100), terms(20, 60, 300)];
        // A minute before the change, corrected after it: one click of nine came late, at the new price.
        let found = compared(&terms, &[row(59, 9, 1_100, 22)], 900);
        assert_eq!((found.terms_changed_micros, found.unexplained_micros), (-200, 0));
        assert_eq!(unexplained(&terms, &[row(59, 9, 1_100, 19)], 900), 200, "nothing was counted after the change");
        assert_eq!(unexplained(&terms, &[row(70, 9, 900, 30)], 2_700), 1_800, "long after the change");
        assert_eq!(unexplained(&terms, &[row(60, 9, 900, 22)], 2_700), 0, "dated after it, counted before it");
    }

    #[test]
    fn nothing_is_charged_before_the_first_terms() {
        let found = compared(&[], &[row(60, 4, 0, 9)], 0);
        assert_eq!(found.unexplained_micros, 0);
        assert_eq!(unexplained(&[], &[row(60, 4, 7, 9)], 0), 7, "terms that never arrived");
        let later = [terms(10, 70, 100)];
        assert_eq!(unexplained(&later, &[row(60, 4, 0, 9)], 0), 0);
        assert_eq!(unexplained(&later, &[row(60, 4, 100, 12)], 400), 0, "one click came after them");
        assert_eq!(unexplained(&later, &[row(60, 4, 100, 9)], 400), 100, "none came after them");
    }

    #[test]
    fn amounts_in_two_currencies_are_not_added() {
        let euro = Terms { currency: Currency::try_from("EUR".to_owned()).unwrap(), ..terms(11, 9, 5) };
        let batch = BatchAmounts { cost_micros: 5, billed_micros: 5 };
        assert_eq!(compare(7, &[&terms(10, 0, 5), &euro], &[row(60, 1, 99, 12)], batch, 0).unwrap(), None);
    }
}
