//! Campaign terms and budgets.
//!
//! The rules here are those of every supported build: a replica of an older build applies the same entries. A newer
//! rule, such as "a currency never changes", is enforced by the proposer against the revision that it names in
//! `expected_revision` (`api/src/catalogue/campaigns.rs`).

use clicktally_proto::command::{CampaignTerms, Outcome, Rejection};
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_proto::limits::NAME_BYTES_MAX;

use crate::group_state::GroupState;
use crate::limits::{CAMPAIGNS_MAX, REPLACED_TERMS_MAX};

impl GroupState {
    pub(super) fn set_campaign(&mut self, index: u64, terms: CampaignTerms) -> Result<Outcome, Rejection> {
        if terms.campaign_id == 0 || terms.advertiser_id == 0 {
            return Err(Rejection::ZeroId);
        }
        if terms.cost_per_click_micros < 0 || terms.budget_micros < 0 || terms.tolerance_micros < 0 {
            return Err(Rejection::NegativeAmount);
        }
        if terms.name.len() > NAME_BYTES_MAX {
            return Err(Rejection::Limit(format!("{NAME_BYTES_MAX} bytes of name")));
        }
        let groups = self.settings.map_or(1, |settings| settings.groups);
        if Partitioner::new(groups).group(terms.campaign_id) != self.group {
            return Err(Rejection::ForeignCampaign(terms.campaign_id));
        }
        let current = self.catalogue.get(terms.campaign_id);
        let revision_now = current.map_or(0, |campaign| campaign.revision);
        if terms.expected_revision.is_some_and(|expected| expected != revision_now) {
            return Err(Rejection::RevisionMoved(revision_now));
        }
        if current.is_some_and(|current| current.terms == terms) {
            return Ok(Outcome::CampaignSet { revision: revision_now });
        }
        if current.is_none() && self.catalogue.is_full() {
            return Err(Rejection::Limit(format!("{CAMPAIGNS_MAX} campaigns in one group; configure more groups")));
        }
        if self.catalogue.is_full_of_replaced(terms.campaign_id) {
            return Err(Rejection::Limit(format!(
                "{REPLACED_TERMS_MAX} changed terms that wait for PostgreSQL; they are written once PostgreSQL is back"
            )));
        }
        self.catalogue.set_terms(terms, index);
        Ok(Outcome::CampaignSet { revision: index })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;
    use clicktally_proto::money::Currency;

    use super::*;

    fn terms(budget_micros: i64, expected_revision: Option<u64>) -> CampaignTerms {
        CampaignTerms {
            campaign_id: 7,
            advertiser_id: 1,
            name: "spring".into(),
            currency: Currency::USD,
            cost_per_click_micros: 500_000,
            budget_micros,
            tolerance_micros: 0,
            effective_from_ms: 0,
            expected_revision,
        }
    }

    #[test]
    fn a_stale_edit_is_a_conflict_and_changes_nothing() {
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.set_campaign(5, terms(10, Some(0))), Ok(Outcome::CampaignSet { revision: 5 }));
        assert_eq!(state.set_campaign(6, terms(20, Some(4))), Err(Rejection::RevisionMoved(5)));
        assert_eq!(state.campaign(7).unwrap().terms.budget_micros, 10);
        assert_eq!(state.set_campaign(7, terms(20, Some(5))), Ok(Outcome::CampaignSet { revision: 7 }));
    }

    #[test]
    fn every_price_is_kept_from_the_first_report_on_until_postgresql_has_it() {
        let mut state = GroupState::new(GroupId(0));
        let held = |state: &GroupState| state.replaced_terms().keys().copied().collect::<Vec<_>>();
        state.set_campaign(5, terms(10, None)).unwrap();
        state.set_campaign(6, terms(20, None)).unwrap();
        assert!(held(&state).is_empty(), "as in builds that know no reports");
        assert_eq!(state.terms_exported(7, 6), Ok(Outcome::Done));
        (8..=10).for_each(|index| drop(state.set_campaign(index, terms(10 * i64::try_from(index).unwrap(), None))));
        assert_eq!(held(&state), [8, 9], "revision 6 is in PostgreSQL, 10 is in force");
        assert_eq!(state.replaced_terms()[&8].budget_micros, 80);
        assert_eq!(state.terms_exported(11, 8), Ok(Outcome::Done));
        assert_eq!(held(&state), [9]);
        assert_eq!(state.terms_exported(12, 7), Ok(Outcome::AlreadyApplied), "a slower writer");
        assert_eq!(state.terms_exported(13, 99), Ok(Outcome::Done));
        assert_eq!(state.exported_terms(), 13, "later terms are not reported yet");
        state.check().unwrap();
    }

    #[test]
    fn changes_that_postgresql_does_not_take_are_refused_at_a_limit_and_new_campaigns_are_not() {
        let mut state = GroupState::new(GroupId(0));
        state.terms_exported(1, 1).unwrap();
        let most = REPLACED_TERMS_MAX as u64;
        for index in 2..=2 + most {
            state.set_campaign(index, terms(i64::try_from(index).unwrap(), None)).unwrap();
        }
        let refused = state.set_campaign(most + 3, terms(1, None));
        assert!(matches!(&refused, Err(Rejection::Limit(why)) if why.contains("PostgreSQL")), "{refused:?}");
        state.set_campaign(most + 4, CampaignTerms { campaign_id: 8, ..terms(1, None) }).unwrap();
        state.terms_exported(most + 5, 2).unwrap();
        state.set_campaign(most + 6, terms(1, None)).unwrap();
    }

    #[test]
    fn negative_money_is_refused() {
        let mut state = GroupState::new(GroupId(0));
        assert_eq!(state.set_campaign(1, terms(-1, None)), Err(Rejection::NegativeAmount));
    }
}
