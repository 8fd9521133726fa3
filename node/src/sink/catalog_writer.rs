//! Reads: campaign terms in replicated state, their owner. Writes: `catalog.campaign_terms`, which the batch bills by.
//!
//! Promises: every revision of a campaign arrives, each once (insert-only, keyed by revision). A revision that was
//! replaced before a round saw it is missing; it was in force for less than a round. On restart: offers everything
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_database::catalog::{NewTerms, add_terms};
use clicktally_database::{AdvisoryLock, Database, DatabaseError};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use clicktally_state::catalogue::Campaign;
use tokio::sync::watch;

use super::singleton;
use crate::retry::{self, Backoff};

const ROUND: Duration = Duration::from_millis(200);

pub async fn run(groups: Arc<[Group]>, database: Database, mut stop: watch::Receiver<bool>) {
    while let Some(mut held) = singleton::obtain(&database, AdvisoryLock::CatalogWriter, &mut stop).await {
        let mut written: BTreeMap<CampaignId, u64> = BTreeMap::new();
        let mut pause = ROUND;
        loop {
            if retry::pause(pause, &mut stop).await.is_none() {
                return;
            }
            let news: Vec<Arc<Campaign>> = groups
                .iter()
                .flat_map(|group| {
                    group.read(|state| {
                        let is_new = |campaign: &&Arc<Campaign>| {
                            written.get(&campaign.terms.campaign_id) != Some(&campaign.revision)
                        };
                        state.campaigns().values().filter(is_new).cloned().collect::<Vec<_>>()
                    })
                })
                .collect();
            pause = ROUND;
            if news.is_empty() {
                continue;
            }
            if let Err(error) = write(&database, &news).await {
                if error.next_move() == NextMove::Retry {
                    tracing::warn!(%error, "campaign terms not written yet; trying again");
                } else {
                    tracing::error!(%error, "campaign terms are not billable until an operator acts");
                }
                pause = Backoff::steady(ROUND).after(error.next_move());
                if !held.is_held().await {
                    break;
                }
                continue;
            }
            written.extend(news.iter().map(|campaign| (campaign.terms.campaign_id, campaign.revision)));
        }
    }
}

async fn write(database: &Database, campaigns: &[Arc<Campaign>]) -> Result<(), DatabaseError> {
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
