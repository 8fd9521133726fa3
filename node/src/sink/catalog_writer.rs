//! Reads: campaign terms in replicated state, their owner. Writes: `catalog.campaign_terms`, which the batch bills by.
//!
//! Promises: every revision of a campaign arrives, each once (insert-only, keyed by revision). A revision replaced before it was
//! seen here is missing; it was in force for less than a round. On restart: offers everything again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::identity::ids::CampaignId;
use clicktally_raft_store::group::Group;
use clicktally_state::catalogue::Campaign;
use sqlx::PgPool;
use tokio::sync::watch;

use super::singleton::{self, Duty};

const ROUND: Duration = Duration::from_millis(200);

pub async fn run(groups: Arc<[Group]>, pool: PgPool, mut stop: watch::Receiver<bool>) {
    while let Some(mut held) = singleton::obtain(&pool, Duty::CatalogWriter, &mut stop).await {
        let mut written: BTreeMap<CampaignId, u64> = BTreeMap::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                _ = stop.wait_for(|stop| *stop) => return,
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
            if news.is_empty() {
                continue;
            }
            if let Err(error) = write(&pool, &news).await {
                tracing::warn!(%error, "campaign terms not written yet; trying again");
                if !held.is_held().await {
                    break;
                }
                continue;
            }
            written.extend(news.iter().map(|campaign| (campaign.terms.campaign_id, campaign.revision)));
        }
    }
}

async fn write(pool: &PgPool, campaigns: &[Arc<Campaign>]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for campaign in campaigns {
        let terms = &campaign.terms;
        sqlx::query(
            "INSERT INTO catalog.campaign_terms (campaign_id, revision, advertiser_id, name, currency, \
             cost_per_click_micros, budget_micros, tolerance_micros, effective_from) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, to_timestamp($9::bigint / 1000.0)) ON CONFLICT DO NOTHING",
        )
        .bind(terms.campaign_id.cast_signed())
        .bind(campaign.revision.cast_signed())
        .bind(terms.advertiser_id.cast_signed())
        .bind(&terms.name)
        .bind(terms.currency.as_str())
        .bind(terms.cost_per_click_micros)
        .bind(terms.budget_micros)
        .bind(terms.tolerance_micros)
        .bind(terms.effective_from_ms.cast_signed())
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}
