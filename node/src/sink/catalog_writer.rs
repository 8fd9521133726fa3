//! Reads: campaign terms in replicated state, their owner. Writes: `catalog.campaign_terms`, which the batch bills by,
//! and how far they are complete; then `TermsExported`.
//!
//! Promises: every revision of a campaign arrives, each once (insert-only, keyed by revision). Replicated state keeps
//! replaced terms until their arrival is reported. A revision that PostgreSQL refuses is logged, shown in
//! `clicktally_catalog_terms_refused`, and offered again after some minutes; the others arrive. On restart: offers
//! everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clicktally_database::catalog::{NewTerms, RefusedTerms, TermsExport, add_terms, newest_revisions, note_exports};
use clicktally_database::{AdvisoryLock, Database, DatabaseError};
use clicktally_proto::clock::Clock;
use clicktally_proto::command::{CampaignTerms, Command};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use clicktally_state::group_state::GroupState;
use prometheus::IntGauge;
use tokio::sync::watch;

use super::singleton;
use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

const ROUND: Duration = Duration::from_millis(200);
/// Every so many rounds, the writer proves its replicas fresh and reports how far PostgreSQL is complete.
const PROOF_ROUNDS: u32 = 10;
/// A refused revision is offered again after this many rounds, five minutes or more.
const REFUSED_ROUNDS: u32 = 1_500;

static REFUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Campaigns whose terms PostgreSQL refuses, so that their clicks are not billed; the log names them";
    registered(IntGauge::new("clicktally_catalog_terms_refused", help).expect(FIXED))
});

/// One revision of a campaign's terms in a replica.
#[derive(Debug, Clone)]
struct Revision {
    revision: u64,
    terms: Arc<CampaignTerms>,
}

/// What a look at a group's replica found.
#[derive(Debug)]
struct Reading {
    group: GroupId,
    /// Not offered before.
    news: Vec<Revision>,
    /// No terms in the replica are newer.
    through_revision: u64,
    /// Some terms are not reported as exported yet.
    is_unreported: bool,
    max_ahead_ms: u64,
}

/// Which revisions were offered to PostgreSQL, and which campaigns it refused.
#[derive(Debug, Default)]
struct Offered {
    revisions: BTreeMap<CampaignId, u64>,
    /// Replaced terms of the group were offered up to this revision.
    replaced: BTreeMap<GroupId, u64>,
    refused: BTreeSet<CampaignId>,
    rounds: u32,
}

impl Offered {
    /// Begins a round. From time to time it forgets the refused campaigns, so that they are offered again.
    fn begin_round(&mut self) {
        self.rounds += 1;
        if self.rounds >= REFUSED_ROUNDS {
            self.rounds = 0;
            for campaign in &self.refused {
                self.revisions.remove(campaign);
            }
        }
    }

    fn is_new(&self, campaign: CampaignId, revision: u64) -> bool {
        self.revisions.get(&campaign) != Some(&revision)
    }

    fn read(&self, state: &GroupState) -> Reading {
        let group = state.group();
        let offered = self.replaced.get(&group).copied().unwrap_or(0);
        let replaced = state.replaced_terms().range(offered + 1..);
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
    fn first_seen(&self, news: &[Revision]) -> Vec<CampaignId> {
        let campaigns = news.iter().map(|news| news.terms.campaign_id);
        let unknown: BTreeSet<CampaignId> =
            campaigns.filter(|campaign| !self.revisions.contains_key(campaign)).collect();
        unknown.into_iter().collect()
    }

    /// PostgreSQL took all revisions of the reading but the refused ones.
    fn record(&mut self, reading: &Reading, refused: &[RefusedTerms]) {
        for Revision { revision, terms } in &reading.news {
            let newest = self.revisions.entry(terms.campaign_id).or_default();
            *newest = (*newest).max(*revision);
            self.refused.remove(&terms.campaign_id);
        }
        self.replaced.insert(reading.group, reading.through_revision);
        self.refused.extend(refused.iter().map(|terms| terms.campaign_id));
    }
}

/// Runs on every node that serves. One of them writes.
pub async fn run(
    groups: Arc<[Group]>,
    database: Database,
    clock: Arc<dyn Clock>,
    halts: Arc<Halts>,
    mut stop: watch::Receiver<bool>,
) {
    let duty = AdvisoryLock::CatalogWriter;
    while let Some(mut held) = singleton::obtain(&database, duty, Part::CatalogueWriter, &halts, &mut stop).await {
        let mut offered = Offered::default();
        let mut pause = ROUND;
        loop {
            if retry::pause(pause, &mut stop).await.is_none() {
                return;
            }
            pause = match round(&groups, &database, clock.as_ref(), &mut offered).await {
                Ok(()) => {
                    halts.works(Part::CatalogueWriter);
                    ROUND
                }
                Err(error) => {
                    if error.next_move() == NextMove::Retry {
                        tracing::warn!(%error, "campaign terms not written yet; trying again");
                    } else {
                        halts.halted(Part::CatalogueWriter, &error);
                    }
                    Backoff::steady(ROUND).after(error.next_move())
                }
            };
            // The rounds use other connections, which may live longer than the one that has the duty.
            if !held.is_held().await {
                break;
            }
        }
    }
}

/// Writes what is new. The first round and every [`PROOF_ROUNDS`]th also report how far PostgreSQL is complete.
async fn round(
    groups: &[Group],
    database: &Database,
    clock: &dyn Clock,
    offered: &mut Offered,
) -> Result<(), DatabaseError> {
    let is_proof_due = offered.rounds.is_multiple_of(PROOF_ROUNDS);
    // The time is taken before the proof, which does not cover what is accepted later.
    let asked_at_ms = clock.now_ms();
    if is_proof_due && !are_fresh(groups).await {
        // Nothing is compared with a replica that may lack what PostgreSQL has already.
        return Ok(());
    }
    offered.begin_round();
    let mut exports = Vec::new();
    for group in groups {
        let reading = group.read(|state| offered.read(state));
        write(database, &reading, offered).await?;
        if reading.is_unreported && (is_proof_due || !reading.news.is_empty()) {
            report(group, reading.through_revision).await;
        }
        exports.push(export(&reading, asked_at_ms));
    }
    if is_proof_due {
        note_exports(database, &exports).await?;
    }
    Ok(())
}

fn export(reading: &Reading, complete_to_ms: UnixMillis) -> TermsExport {
    TermsExport { group: reading.group, complete_to_ms, max_ahead_ms: reading.max_ahead_ms }
}

async fn are_fresh(groups: &[Group]) -> bool {
    for group in groups {
        if let Err(error) = group.read_barrier().await {
            tracing::debug!(group = group.id().0, %error, "the replica is not proven fresh");
            return false;
        }
    }
    true
}

async fn write(database: &Database, reading: &Reading, offered: &mut Offered) -> Result<(), DatabaseError> {
    if reading.news.is_empty() {
        return Ok(());
    }
    refuse_foreign(database, reading, offered).await?;
    let revisions: Vec<NewTerms<'_>> = reading.news.iter().map(new_terms).collect();
    let refused = add_terms(database, &revisions).await?;
    for RefusedTerms { campaign_id, revision, detail } in &refused {
        tracing::error!(
            campaign_id, revision, error = %detail,
            "PostgreSQL refuses the terms of this campaign, so its clicks are not billed: set terms that it takes"
        );
    }
    offered.record(reading, &refused);
    REFUSED.set(i64::try_from(offered.refused.len()).unwrap_or(i64::MAX));
    Ok(())
}

/// The first round has proven the replica fresh. So PostgreSQL can hold newer terms only if they are another cluster's.
async fn refuse_foreign(database: &Database, reading: &Reading, offered: &Offered) -> Result<(), DatabaseError> {
    let known = newest_revisions(database, &offered.first_seen(&reading.news)).await?;
    let mut newest: BTreeMap<CampaignId, u64> = BTreeMap::new();
    for Revision { revision, terms } in &reading.news {
        let of_campaign = newest.entry(terms.campaign_id).or_default();
        *of_campaign = (*of_campaign).max(*revision);
    }
    let foreign = known.into_iter().find_map(|(campaign_id, found)| {
        let revision = newest.get(&campaign_id).copied().unwrap_or(0);
        (found > revision.cast_signed()).then_some(DatabaseError::ForeignTerms { campaign_id, revision, found })
    });
    foreign.map_or(Ok(()), Err)
}

async fn report(group: &Group, through_revision: u64) {
    // A failed report is repeated. It is refused while a member runs an older build.
    match group.propose(&Command::TermsExported { through_revision }).await {
        Ok(outcome) => tracing::debug!(group = group.id().0, through_revision, ?outcome, "terms reported as exported"),
        Err(error) => tracing::debug!(group = group.id().0, %error, "terms not reported as exported yet"),
    }
}

fn new_terms(news: &Revision) -> NewTerms<'_> {
    let terms = &news.terms;
    NewTerms {
        campaign_id: terms.campaign_id,
        revision: news.revision,
        advertiser_id: terms.advertiser_id,
        name: &terms.name,
        currency: terms.currency,
        cost_per_click_micros: terms.cost_per_click_micros,
        budget_micros: terms.budget_micros,
        tolerance_micros: terms.tolerance_micros,
        effective_from_ms: terms.effective_from_ms,
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::codec;
    use clicktally_proto::command::COMMAND_LEVEL;
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
        assert_eq!(offered.refused.len(), 1);
        offered.record(&edited, &[]);
        assert_eq!(offered.refused.len(), 0);
    }
}
