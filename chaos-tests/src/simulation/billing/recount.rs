//! What is right: a recount over all clicks and all terms, written from `docs/billing.md`. It shares no code with
//! `billing`, takes clicks one by one, and is slow.

use std::collections::BTreeMap;

use clicktally_billing::Day;
use clicktally_proto::money::Micros;

use super::stream::{AcceptedTerms, Click};
use super::tables::StoredDocument;

/// Clicks of a campaign-day under one revision of its terms; revision 0 for those without terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) clicks: i64,
    pub(super) billed_clicks: i64,
    pub(super) amount_micros: Micros,
}

/// By campaign and revision.
pub(super) type Bill = BTreeMap<(u64, u64), Owed>;

/// A click is dated no further ahead of its arrival than the group's settings allow.
pub(super) fn is_accepted(click: &Click, max_ahead_ms: u64) -> bool {
    click.event_time_ms.saturating_sub(click.arrival_ms) <= max_ahead_ms
}

/// The terms of a click: the newest of those in force at its time. A click dated before all terms has the first ones if
/// it arrived after them, or none.
pub(super) fn terms_of<'a>(click: &Click, accepted: &'a [AcceptedTerms]) -> Option<&'a AcceptedTerms> {
    let mut newest: Option<&AcceptedTerms> = None;
    let mut first: Option<&AcceptedTerms> = None;
    for candidate in accepted.iter().filter(|candidate| candidate.terms.campaign_id == click.campaign_id) {
        let begins_ms = candidate.terms.effective_from_ms;
        if begins_ms <= click.event_time_ms && newest.is_none_or(|newest| newest.revision < candidate.revision) {
            newest = Some(candidate);
        }
        let order = (begins_ms, u64::MAX - candidate.revision);
        if first.is_none_or(|first| order < (first.terms.effective_from_ms, u64::MAX - first.revision)) {
            first = Some(candidate);
        }
    }
    newest.or_else(|| first.filter(|first| first.terms.effective_from_ms <= click.arrival_ms))
}

/// The bill of a day. `documents` may hold other days: what an earlier day bills counts before this day, and what a
/// later day bills must still fit.
pub(super) fn bill(day: Day, clicks: &[&Click], accepted: &[AcceptedTerms], documents: &[StoredDocument]) -> Bill {
    let mut by_terms: BTreeMap<(u64, u64), (i64, Option<&AcceptedTerms>)> = BTreeMap::new();
    for click in clicks {
        let terms = terms_of(click, accepted);
        by_terms.entry((click.campaign_id, terms.map_or(0, |terms| terms.revision))).or_insert((0, terms)).0 += 1;
    }
    let mut bill = Bill::new();
    let mut billed_today: BTreeMap<u64, i128> = BTreeMap::new();
    for ((campaign_id, revision), (clicks, terms)) in by_terms {
        let mut owed = Owed { clicks, ..Owed::default() };
        if let Some(AcceptedTerms { terms, .. }) = terms {
            let price = i128::from(terms.cost_per_click_micros);
            let today = billed_today.entry(campaign_id).or_insert(0);
            for _ in 0..clicks {
                if fits(day, campaign_id, i128::from(terms.budget_micros), *today + price, accepted, documents)
                    || price == 0
                {
                    *today += price;
                    owed.billed_clicks += 1;
                    owed.amount_micros += terms.cost_per_click_micros;
                }
            }
        }
        bill.insert((campaign_id, revision), owed);
    }
    bill
}

/// Everything billed up to a click fits into the budget of its terms, and so does everything that later days billed.
fn fits(
    day: Day,
    campaign_id: u64,
    budget: i128,
    today: i128,
    accepted: &[AcceptedTerms],
    documents: &[StoredDocument],
) -> bool {
    let mut before = today;
    let mut after: BTreeMap<(Day, i64), i128> = BTreeMap::new();
    for document in documents.iter().map(|stored| &stored.document) {
        for line in document.lines.iter().filter(|line| line.campaign_id == campaign_id.cast_signed()) {
            if document.day < day {
                before += i128::from(line.amount_micros);
            } else if document.day > day {
                *after.entry((document.day, line.terms_revision)).or_default() += i128::from(line.amount_micros);
            }
        }
    }
    let mut is_within = before <= budget;
    for ((_, revision), amount) in after.into_iter().filter(|(_, amount)| *amount > 0) {
        before += amount;
        let of_revision =
            |known: &&AcceptedTerms| known.terms.campaign_id == campaign_id && known.revision.cast_signed() == revision;
        let budget = accepted.iter().find(of_revision).map_or(0, |known| i128::from(known.terms.budget_micros));
        is_within &= before <= budget;
    }
    is_within
}
