//! Reads: campaign terms in replicated state, their owner. Writes: `catalog.campaign_terms`, which the batch bills by,
//! and how far they are complete; then `TermsExported`.
//!
//! Promises: every revision of a campaign arrives, each once (insert-only, keyed by revision). Replicated state keeps
//! replaced terms until their arrival is reported. A revision that PostgreSQL refuses is logged, shown in
//! `clicktally_catalog_terms_refused`, and offered again after some minutes; the others arrive. On restart: offers
//! everything again.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clicktally_database::catalog::{NewTerms, RefusedTerms, add_terms, newest_revisions, note_exports};
use clicktally_database::{AdvisoryLock, Database, DatabaseError};
use clicktally_proto::clock::Clock;
use clicktally_proto::command::Command;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::IntGauge;
use tokio::sync::watch;

use super::singleton;
use super::terms_news::{Offered, Reading, Revision};
use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

const ROUND: Duration = Duration::from_millis(200);
/// Every so many rounds, the writer proves its replicas fresh and reports how far PostgreSQL is complete.
const PROOF_ROUNDS: u32 = 10;

static REFUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Campaigns whose terms PostgreSQL refuses, so that their clicks are not billed; the log names them";
    registered(IntGauge::new("clicktally_catalog_terms_refused", help).expect(FIXED))
});

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
    let is_proof_due = offered.rounds().is_multiple_of(PROOF_ROUNDS);
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
        exports.push(reading.export(asked_at_ms));
    }
    if is_proof_due {
        note_exports(database, &exports).await?;
    }
    Ok(())
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
    let revisions: Vec<NewTerms<'_>> = reading.news.iter().map(Revision::as_row).collect();
    let refused = add_terms(database, &revisions).await?;
    for RefusedTerms { campaign_id, revision, detail } in &refused {
        tracing::error!(
            campaign_id, revision, error = %detail,
            "PostgreSQL refuses the terms of this campaign, so its clicks are not billed: set terms that it takes"
        );
    }
    offered.record(reading, &refused);
    REFUSED.set(i64::try_from(offered.refused_campaigns()).unwrap_or(i64::MAX));
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
