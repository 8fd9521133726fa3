//! Reads: campaign terms in replicated state, their owner. Writes: `catalog.campaign_terms`, which the batch bills by.
//!
//! Promises: every revision of a campaign arrives, each once (insert-only, keyed by revision). A revision that was
//! replaced before a round saw it is missing; it was in force for less than a round. A revision that PostgreSQL refuses
//! is logged, shown in `clicktally_catalog_terms_refused`, and offered again after some minutes; the others arrive. On
//! restart: offers everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clicktally_database::catalog::{NewTerms, RefusedTerms, add_terms};
use clicktally_database::{AdvisoryLock, Database, DatabaseError};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use clicktally_state::catalogue::Campaign;
use prometheus::IntGauge;
use tokio::sync::watch;

use super::singleton;
use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

const ROUND: Duration = Duration::from_millis(200);
/// A refused revision is offered again after this many rounds, five minutes or more.
const REFUSED_ROUNDS: u32 = 1_500;

static REFUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Campaigns whose terms PostgreSQL refuses, so that their clicks are not billed; the log names them";
    registered(IntGauge::new("clicktally_catalog_terms_refused", help).expect(FIXED))
});

/// Which revision of each campaign was offered to PostgreSQL, and which campaigns it refused.
#[derive(Debug, Default)]
struct Offered {
    revisions: BTreeMap<CampaignId, u64>,
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

    /// PostgreSQL took all revisions but the refused ones.
    fn record(&mut self, offered: impl Iterator<Item = (CampaignId, u64)>, refused: &[RefusedTerms]) {
        for (campaign, revision) in offered {
            self.revisions.insert(campaign, revision);
            self.refused.remove(&campaign);
        }
        self.refused.extend(refused.iter().map(|terms| terms.campaign_id));
    }
}

pub async fn run(groups: Arc<[Group]>, database: Database, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
    let duty = AdvisoryLock::CatalogWriter;
    while let Some(mut held) = singleton::obtain(&database, duty, Part::CatalogueWriter, &halts, &mut stop).await {
        let mut offered = Offered::default();
        let mut pause = ROUND;
        loop {
            if retry::pause(pause, &mut stop).await.is_none() {
                return;
            }
            offered.begin_round();
            let news: Vec<Arc<Campaign>> = groups
                .iter()
                .flat_map(|group| {
                    group.read(|state| {
                        let is_new =
                            |campaign: &&Arc<Campaign>| offered.is_new(campaign.terms.campaign_id, campaign.revision);
                        state.campaigns().values().filter(is_new).cloned().collect::<Vec<_>>()
                    })
                })
                .collect();
            pause = ROUND;
            if news.is_empty() {
                continue;
            }
            let refused = match write(&database, &news).await {
                Ok(refused) => {
                    halts.works(Part::CatalogueWriter);
                    refused
                }
                Err(error) => {
                    if error.next_move() == NextMove::Retry {
                        tracing::warn!(%error, "campaign terms not written yet; trying again");
                    } else {
                        halts.halted(Part::CatalogueWriter, &error);
                    }
                    pause = Backoff::steady(ROUND).after(error.next_move());
                    if !held.is_held().await {
                        break;
                    }
                    continue;
                }
            };
            for RefusedTerms { campaign_id, revision, detail } in &refused {
                tracing::error!(
                    campaign_id, revision, error = %detail,
                    "PostgreSQL refuses the terms of this campaign, so its clicks are not billed: set terms that it takes"
                );
            }
            let revisions = news.iter().map(|campaign| (campaign.terms.campaign_id, campaign.revision));
            offered.record(revisions, &refused);
            REFUSED.set(i64::try_from(offered.refused.len()).unwrap_or(i64::MAX));
        }
    }
}

async fn write(database: &Database, campaigns: &[Arc<Campaign>]) -> Result<Vec<RefusedTerms>, DatabaseError> {
    let revisions: Vec<NewTerms<'_>> = campaigns.iter().map(|campaign| new_terms(campaign)).collect();
    add_terms(database, &revisions).await
}

fn new_terms(campaign: &Campaign) -> NewTerms<'_> {
    let terms = &campaign.terms;
    NewTerms {
        campaign_id: terms.campaign_id,
        revision: campaign.revision,
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
    use super::*;

    #[test]
    fn a_refused_campaign_is_offered_again_and_shown_until_it_is_taken() {
        let mut offered = Offered::default();
        let refused = [RefusedTerms { campaign_id: 2, revision: 5, detail: String::new() }];
        offered.record([(1, 4), (2, 5)].into_iter(), &refused);
        assert!(!offered.is_new(1, 4) && !offered.is_new(2, 5), "not before some minutes have passed");
        assert!(offered.is_new(2, 6), "an edit is offered at once");
        (0..REFUSED_ROUNDS).for_each(|_| offered.begin_round());
        assert!(!offered.is_new(1, 4) && offered.is_new(2, 5));
        assert_eq!(offered.refused.len(), 1);
        offered.record([(2, 5)].into_iter(), &[]);
        assert_eq!(offered.refused.len(), 0);
    }
}
