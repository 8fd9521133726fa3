//! Which terms a click falls under: the newest revision in effect at its event time.

use std::collections::BTreeMap;

use clicktally_database::catalog::Terms;
use clicktally_proto::fault::{Mutant, is_broken};

/// Clicks of the campaign with event times in `[from_ms, to_ms)` fall under `revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermsInterval {
    pub campaign_id: i64,
    pub revision: i64,
    pub from_ms: u64,
    pub to_ms: u64,
    /// When the terms came into force. Only the first terms of a campaign cover event times before that, and only for
    /// clicks that arrive after it: an earlier click had no terms, and the stream charged nothing for it.
    pub agreed_ms: u64,
}

impl TermsInterval {
    /// The rule that the batch's SQL restates.
    pub fn holds(&self, event_time_ms: u64, arrival_ms: u64) -> bool {
        let is_agreed =
            event_time_ms >= self.agreed_ms || arrival_ms >= self.agreed_ms || is_broken(Mutant::FirstTermsCoverAll);
        (self.from_ms..self.to_ms).contains(&event_time_ms) && is_agreed
    }
}

/// All terms of all campaigns.
#[derive(Debug, Clone, Default)]
pub struct TermsTimeline {
    /// By campaign, then revision.
    terms: BTreeMap<i64, BTreeMap<i64, Terms>>,
}

impl TermsTimeline {
    pub fn new(terms: impl IntoIterator<Item = Terms>) -> TermsTimeline {
        let mut timeline = TermsTimeline::default();
        for term in terms {
            timeline.terms.entry(term.campaign_id).or_default().insert(term.revision, term);
        }
        timeline
    }

    pub fn get(&self, campaign_id: i64, revision: i64) -> Option<&Terms> {
        self.terms.get(&campaign_id)?.get(&revision)
    }

    /// The terms of the highest revision.
    pub fn newest(&self, campaign_id: i64) -> Option<&Terms> {
        self.terms.get(&campaign_id)?.values().next_back()
    }

    /// Every campaign's life cut into intervals, one set of terms in each. They cover `[0, u64::MAX)` without gap or
    /// overlap: a click before the first terms falls under the first ones. A higher revision wins from its start on,
    /// also over a lower revision that starts later (the clock of the node that took it may have been behind).
    pub fn intervals(&self) -> Vec<TermsInterval> {
        self.terms.iter().flat_map(|(campaign_id, revisions)| intervals_of(*campaign_id, revisions)).collect()
    }
}

fn intervals_of(campaign_id: i64, revisions: &BTreeMap<i64, Terms>) -> Vec<TermsInterval> {
    let shift_ms = u64::from(is_broken(Mutant::PriceIntervalShifted));
    let mut starts: Vec<(u64, i64)> =
        revisions.values().map(|term| (term.effective_from_ms + shift_ms, term.revision)).collect();
    starts.sort_unstable();
    let mut intervals: Vec<TermsInterval> = Vec::new();
    let mut began_ms = 0;
    for (from_ms, revision) in starts {
        let agreed_ms = from_ms;
        match intervals.last_mut() {
            None => intervals.push(TermsInterval { campaign_id, revision, from_ms: 0, to_ms: u64::MAX, agreed_ms }),
            Some(before) if revision < before.revision => continue,
            // It was replaced at the instant it began, so it was never in effect.
            Some(before) if began_ms == from_ms => before.revision = revision,
            Some(before) => {
                before.to_ms = from_ms;
                intervals.push(TermsInterval { campaign_id, revision, from_ms, to_ms: u64::MAX, agreed_ms });
            }
        }
        began_ms = from_ms;
    }
    assert!(
        intervals.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms && pair[0].revision < pair[1].revision),
        "intervals follow each other without gap or overlap, and later ones have higher revisions"
    );
    assert!(
        intervals.first().is_none_or(|first| first.from_ms == 0)
            && intervals.last().is_none_or(|last| last.to_ms == u64::MAX),
        "the intervals of a campaign cover all time"
    );
    intervals
}

#[cfg(test)]
mod tests {
    use clicktally_proto::money::Currency;
    use proptest::prelude::*;

    use super::*;

    fn terms(revision: i64, effective_from_ms: u64) -> Terms {
        Terms {
            campaign_id: 1,
            revision,
            advertiser_id: 1,
            name: String::new(),
            currency: Currency::USD,
            cost_per_click_micros: 1,
            budget_micros: 1,
            effective_from_ms,
        }
    }

    #[test]
    fn a_click_from_before_the_first_terms_falls_under_them_only_if_it_arrives_later() {
        let timeline = TermsTimeline::new([terms(1, 100), terms(2, 200)]);
        let falls_under = |event_time_ms, arrival_ms| {
            timeline.intervals().iter().find(|interval| interval.holds(event_time_ms, arrival_ms)).map(|i| i.revision)
        };
        assert_eq!(falls_under(50, 99), None);
        assert_eq!(falls_under(50, 100), Some(1));
        // A device whose clock is ahead: the click is dated after the terms, and has them.
        assert_eq!(falls_under(100, 50), Some(1));
        assert_eq!(falls_under(150, 250), Some(1), "by its own time, not by its arrival");
        assert_eq!(falls_under(250, 150), Some(2));
    }

    proptest! {
        #[test]
        fn every_instant_has_exactly_the_newest_terms_in_effect_or_the_first(
            starts in proptest::collection::vec(0_u64..20, 1..8), at in 0_u64..25) {
            let all: Vec<Terms> = (1..).zip(&starts).map(|(revision, start)| terms(revision, *start)).collect();
            let first = starts.iter().min().copied().unwrap_or(0);
            let expected = all.iter().filter(|t| t.effective_from_ms <= at.max(first)).map(|t| t.revision).max();
            let holding: Vec<i64> = TermsTimeline::new(all).intervals().iter()
                .filter(|i| i.from_ms <= at && at < i.to_ms).map(|i| i.revision).collect();
            prop_assert_eq!(holding, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
