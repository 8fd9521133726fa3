//! Finds the campaign terms of a group that PostgreSQL does not have yet. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clicktally_database::catalog::{NewTerms, RefusedTerms, TermsExport};
use clicktally_proto::command::CampaignTerms;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_state::group_state::GroupState;

/// A refused revision is offered again after this many rounds, five minutes or more.
const REFUSED_ROUNDS: u32 = 1_500;

/// One revision of a campaign's terms in a replica.
#[derive(Debug, Clone)]
pub struct Revision {
    pub revision: u64,
    pub terms: Arc<CampaignTerms>,
}

/// What a look at a group's replica found.
#[derive(Debug)]
pub struct Reading {
    pub group: GroupId,
    /// Not offered before.
    pub news: Vec<Revision>,
    /// No terms in the replica are newer.
    pub through_revision: u64,
    /// Some terms are not reported as exported yet.
    pub is_unreported: bool,
    pub max_ahead_ms: u64,
}

impl Revision {
    pub fn as_row(&self) -> NewTerms<'_> {
        let terms = &self.terms;
        NewTerms {
            campaign_id: terms.campaign_id,
            revision: self.revision,
            advertiser_id: terms.advertiser_id,
            name: &terms.name,
            currency: terms.currency,
            cost_per_click_micros: terms.cost_per_click_micros,
            budget_micros: terms.budget_micros,
            tolerance_micros: terms.tolerance_micros,
            effective_from_ms: terms.effective_from_ms,
        }
    }
}

impl Reading {
    /// What PostgreSQL has once all of it is written. The replica was proven fresh after `asked_at_ms`.
    pub fn export(&self, asked_at_ms: UnixMillis) -> TermsExport {
        TermsExport { group: self.group, complete_to_ms: asked_at_ms, max_ahead_ms: self.max_ahead_ms }
    }
}

/// Which revisions were offered to PostgreSQL, and which campaigns it refused.
#[derive(Debug, Default)]
pub struct Offered {
    revisions: BTreeMap<CampaignId, u64>,
    /// Replaced terms of the group were offered up to this revision.
    replaced: BTreeMap<GroupId, u64>,
    refused: BTreeSet<CampaignId>,
    rounds: u32,
}

impl Offered {
    /// Begins a round. From time to time it forgets the refused campaigns, so that they are offered again.
    pub fn begin_round(&mut self) {
        self.rounds += 1;
        if self.rounds >= REFUSED_ROUNDS {
            self.rounds = 0;
            for campaign in &self.refused {
                self.revisions.remove(campaign);
            }
        }
    }

    /// Since the refused campaigns were forgotten.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    pub fn refused_campaigns(&self) -> usize {
        self.refused.len()
    }

    fn is_new(&self, campaign: CampaignId, revision: u64) -> bool {
        self.revisions.get(&campaign) != Some(&revision)
    }

    pub fn read(&self, state: &GroupState) -> Reading {
        let group = state.group();
        let offered = self.replaced.get(&group).copied().unwrap_or(0);
        let replaced = state.replaced_terms().range(offered + 1..);
        let replaced = replaced.filter(|_| !is_broken(Mutant::TermsRevisionLost));
        let mut news: Vec<Revision> =
            replaced.map(|(revision, terms)| Revision { revision: *revision, terms: Arc::clone(terms) }).collect();
        let mut through_revision = news.last().map_or(1, |newest| newest.revision);
        for campaign in state.campaigns().values() {
            through_revision = through_revision.max(campaign.revision);
            if self.is_new(campaign.terms.campaign_id, campaign.revision) {
                news.push(Revision { revision: campaign.revision, terms: Arc::new(campaign.terms.clone()) });
            }
        }
        Reading {
            group,
            news,
            through_revision,
            is_unreported: through_revision > state.exported_terms(),
            max_ahead_ms: state.settings().map_or(0, |settings| settings.event_time.max_ahead_ms),
        }
    }

    /// Campaigns of `news` that this writer has never offered.
    pub fn first_seen(&self, news: &[Revision]) -> Vec<CampaignId> {
        let campaigns = news.iter().map(|news| news.terms.campaign_id);
        let unknown: BTreeSet<CampaignId> =
            campaigns.filter(|campaign| !self.revisions.contains_key(campaign)).collect();
        unknown.into_iter().collect()
    }

    /// PostgreSQL took all revisions of the reading but the refused ones.
    pub fn record(&mut self, reading: &Reading, refused: &[RefusedTerms]) {
        for Revision { revision, terms } in &reading.news {
            let newest = self.revisions.entry(terms.campaign_id).or_default();
            *newest = (*newest).max(*revision);
            self.refused.remove(&terms.campaign_id);
        }
        self.replaced.insert(reading.group, reading.through_revision);
        self.refused.extend(refused.iter().map(|terms| terms.campaign_id));
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::codec;
    use clicktally_proto::command::{COMMAND_LEVEL, Command};
    use clicktally_proto::money::Currency;

    use super::*;

    fn terms(campaign_id: CampaignId, micros: i64) -> CampaignTerms {
        CampaignTerms {
            campaign_id,
            advertiser_id: 1,
            name: "spring".to_owned(),
            currency: Currency::USD,
            cost_per_click_micros: micros,
            budget_micros: 0,
            tolerance_micros: 0,
            effective_from_ms: 0,
            expected_revision: None,
        }
    }

    /// A replica that has applied these commands from index 1 on.
    fn replica(commands: &[Command]) -> GroupState {
        let mut state = GroupState::new(GroupId(0));
        for (index, command) in (1..).zip(commands) {
            state.apply(index, &codec::encode(command).unwrap(), COMMAND_LEVEL).unwrap();
        }
        state
    }

    fn revisions(reading: &Reading) -> Vec<(u64, i64)> {
        reading.news.iter().map(|news| (news.revision, news.terms.cost_per_click_micros)).collect()
    }

    #[test]
    fn a_price_that_was_replaced_between_two_rounds_is_offered_once() {
        let mut commands = vec![Command::SetCampaign(terms(7, 5)), Command::TermsExported { through_revision: 1 }];
        let mut offered = Offered::default();
        let reading = offered.read(&replica(&commands));
        assert_eq!((revisions(&reading), reading.through_revision, reading.is_unreported), (vec![(1, 5)], 1, false));
        offered.record(&reading, &[]);
        // PostgreSQL is away; two changes come.
        commands.extend([3, 2].map(|micros| Command::SetCampaign(terms(7, micros))));
        let reading = offered.read(&replica(&commands));
        assert_eq!(
            (revisions(&reading), reading.through_revision, reading.is_unreported),
            (vec![(3, 3), (4, 2)], 4, true)
        );
        offered.record(&reading, &[]);
        assert_eq!(revisions(&offered.read(&replica(&commands))), [], "although the report is still to come");
        commands.push(Command::TermsExported { through_revision: 4 });
        assert!(!offered.read(&replica(&commands)).is_unreported);
        let another_writer = Offered::default().read(&replica(&commands));
        assert_eq!(revisions(&another_writer), [(4, 2)]);
    }

    #[test]
    fn a_refused_campaign_is_offered_again_and_shown_until_it_is_taken() {
        let mut commands = vec![Command::SetCampaign(terms(1, 5)), Command::SetCampaign(terms(2, 5))];
        let mut offered = Offered::default();
        let refused = [RefusedTerms { campaign_id: 2, revision: 2, detail: String::new() }];
        let reading = offered.read(&replica(&commands));
        offered.record(&reading, &refused);
        assert_eq!(revisions(&offered.read(&replica(&commands))), [], "not before some minutes have passed");
        (0..REFUSED_ROUNDS).for_each(|_| offered.begin_round());
        assert_eq!(revisions(&offered.read(&replica(&commands))), [(2, 5)]);
        commands.push(Command::SetCampaign(terms(2, 6)));
        let edited = offered.read(&replica(&commands));
        assert_eq!(revisions(&edited), [(3, 6)], "an edit is offered at once");
        assert_eq!(offered.refused_campaigns(), 1);
        offered.record(&edited, &[]);
        assert_eq!(offered.refused_campaigns(), 0);
    }
}
