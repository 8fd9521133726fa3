//! CT-22: from the first report on, terms stay in the state until PostgreSQL is reported to hold them. Without this, a
//! price that was in force while PostgreSQL was away is on no invoice.

use std::collections::BTreeMap;

use clicktally_proto::command::{CampaignTerms, Command, Outcome};
use clicktally_state::group_state::GroupState;

use super::{Invariant, Violation};

/// Follows one group, entry by entry.
#[derive(Debug, Default)]
pub struct TermsHeld {
    /// Terms by revision that no report has covered since there are reports.
    waiting: BTreeMap<u64, CampaignTerms>,
}

impl TermsHeld {
    /// `state` is that after the entry.
    pub fn committed(&mut self, state: &GroupState, command: &Command, outcome: &Outcome) -> Option<Violation> {
        let through = state.exported_terms();
        if let (Command::SetCampaign(terms), Outcome::CampaignSet { revision }) = (command, outcome)
            && through > 0
        {
            self.waiting.insert(*revision, terms.clone());
        }
        self.waiting = self.waiting.split_off(&(through + 1));
        let is_held = |revision: &u64, terms: &CampaignTerms| {
            let in_force = state.campaign(terms.campaign_id);
            in_force.is_some_and(|campaign| campaign.revision == *revision && campaign.terms == *terms)
                || state.replaced_terms().get(revision).is_some_and(|replaced| **replaced == *terms)
        };
        let (revision, terms) = self.waiting.iter().find(|(revision, terms)| !is_held(revision, terms))?;
        let detail = format!("campaign {}: revision {revision} is gone, exported through {through}", terms.campaign_id);
        Some(Violation { invariant: Invariant::TermsHeld, detail })
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::codec;
    use clicktally_proto::command::COMMAND_LEVEL;
    use clicktally_proto::identity::shard_key::GroupId;
    use clicktally_proto::money::Currency;

    use super::*;

    fn set(name: &str) -> Command {
        Command::SetCampaign(CampaignTerms {
            campaign_id: 7,
            advertiser_id: 1,
            name: name.to_owned(),
            currency: Currency::USD,
            cost_per_click_micros: 1,
            budget_micros: 1,
            tolerance_micros: 0,
            effective_from_ms: 0,
            expected_revision: None,
        })
    }

    #[test]
    fn terms_that_are_forgotten_are_found_and_those_reported_are_not_missed() {
        let (mut state, mut held) = (GroupState::new(GroupId(0)), TermsHeld::default());
        let mut entries = [Command::TermsExported { through_revision: 1 }, set("a"), set("b"), set("c")].into_iter();
        let mut index = 0;
        let mut next = |state: &mut GroupState, held: &mut TermsHeld, command: Command| {
            index += 1;
            let outcome = state.apply(index, &codec::encode(&command).unwrap(), COMMAND_LEVEL).unwrap();
            held.committed(state, &command, &outcome)
        };
        assert!(entries.all(|command| next(&mut state, &mut held, command).is_none()));
        assert_eq!(next(&mut state, &mut held, Command::TermsExported { through_revision: 2 }), None);
        // Another state has the same campaign and nothing that was replaced.
        let mut other = GroupState::new(GroupId(0));
        other.apply(9, &codec::encode(&set("c")).unwrap(), COMMAND_LEVEL).unwrap();
        let found = held.committed(&other, &Command::RemoveNode(1), &Outcome::Done);
        assert!(found.is_some_and(|violation| violation.invariant == Invariant::TermsHeld));
    }
}
