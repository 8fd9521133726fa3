//! Shows the last reconciliation of each day on `/metrics` of every node.
//!
//! *Reads* PostgreSQL every [`READ_INTERVAL`]. *Writes* gauges. *Promises*: what the gauges show is as old as
//! `clicktally_reconciliation_read_timestamp_seconds` says. *On restart* it reads at once.

use std::sync::Arc;
use std::time::Duration;

use clicktally_billing::reconcile::ReconciliationFigures;
use clicktally_database::Database;
use clicktally_proto::clock::Clock;
use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

const READ_INTERVAL: Duration = Duration::from_secs(60);

/// Runs on every node, until stopped.
pub async fn show(database: Database, clock: Arc<dyn Clock>, halts: Arc<Halts>, mut stop: watch::Receiver<bool>) {
    let mut figures = match ReconciliationFigures::register(prometheus::default_registry()) {
        Ok(figures) => figures,
        Err(error) => {
            halts.halted(Part::Reconciliation, &error);
            return;
        }
    };
    loop {
        // The time before the question: what changes meanwhile is not shown.
        let asked_at_ms = clock.now_ms();
        let pause = match figures.refresh(&database, asked_at_ms).await {
            Ok(()) => {
                halts.works(Part::Reconciliation);
                READ_INTERVAL
            }
            Err(error) => {
                if error.next_move() == NextMove::Retry {
                    tracing::debug!(%error, "the reconciliations cannot be read now");
                } else {
                    halts.halted(Part::Reconciliation, &error);
                }
                Backoff::steady(READ_INTERVAL).after(error.next_move())
            }
        };
        if retry::pause(pause, &mut stop).await.is_none() {
            return;
        }
    }
}
