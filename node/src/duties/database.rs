//! Everything that needs PostgreSQL: the connection, then the window writer, the catalogue writer and the archive.
//! Counting never waits for any of it.

use std::sync::Arc;
use std::time::Duration;

use clicktally_billing::archive::{ArchiveOptions, ArchiveStore, Archiver};
use clicktally_billing::error::BillingError;
use clicktally_billing::metrics::BillingMetrics;
use clicktally_database::Database;
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, Role};
use crate::sink::kafka_out_topics::KafkaOutTopics;
use crate::sink::postgres_tables::PostgresTables;
use crate::sink::{catalog_writer, window_writer};

const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause after an error that only an operator can cure. Work continues once the cause is gone: repeating it is
/// harmless.
const HALT_PAUSE: Duration = Duration::from_secs(10);

/// Runs until stopped.
pub async fn run(config: Config, groups: Arc<[Group]>, clock: Arc<dyn Clock>, mut stop: watch::Receiver<bool>) {
    let Some(database) = connect(&config.postgres.url, &mut stop).await else { return };
    let mut duties = JoinSet::new();
    if config.has(Role::Serve) {
        let tables = Arc::new(PostgresTables::new(database.clone()));
        let topics = Arc::new(KafkaOutTopics::new(config.log.connection(), Arc::clone(&clock)));
        duties.spawn(window_writer::run(tables, topics, stop.clone()));
        duties.spawn(catalog_writer::run(groups, database.clone(), stop.clone()));
    }
    if config.has(Role::Archive) {
        duties.spawn(archive(config, database, clock, stop.clone()));
    }
    while duties.join_next().await.is_some() {}
}

async fn connect(url: &str, stop: &mut watch::Receiver<bool>) -> Option<Database> {
    let mut is_told = false;
    loop {
        match Database::connect_and_migrate(url).await {
            Ok(database) => return Some(database),
            Err(error) if error.next_move() == NextMove::Retry => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "no PostgreSQL yet: counting goes on, reports and invoices are delayed");
                }
                pause(RETRY_PAUSE, stop).await?;
            }
            Err(error) => {
                tracing::error!(%error, "PostgreSQL cannot be used: reports and invoices are delayed until an operator acts");
                pause(HALT_PAUSE, stop).await?;
            }
        }
    }
}

async fn archive(config: Config, database: Database, clock: Arc<dyn Clock>, mut stop: watch::Receiver<bool>) {
    let metrics = match BillingMetrics::register(prometheus::default_registry()) {
        Ok(metrics) => metrics,
        Err(error) => {
            tracing::error!(%error, "the archive does not run");
            return;
        }
    };
    loop {
        match archive_until_error(&config, &database, &clock, &metrics, &mut stop).await {
            Ok(()) => return,
            Err(error) => {
                let length = if error.next_move() == NextMove::Retry {
                    tracing::warn!(%error, "the archive was interrupted; it reads on from its manifest");
                    RETRY_PAUSE
                } else {
                    tracing::error!(%error, "nothing is archived until an operator acts");
                    HALT_PAUSE
                };
                if pause(length, &mut stop).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn archive_until_error(
    config: &Config,
    database: &Database,
    clock: &Arc<dyn Clock>,
    metrics: &BillingMetrics,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), BillingError> {
    let store = ArchiveStore::open(&config.archive_location())?;
    let mut options = ArchiveOptions::new(config.log.connection(), Partitioner::new(config.cluster.groups));
    options.file_records_max = config.archive.flush_rows;
    options.file_age_max = Duration::from_millis(config.archive.flush_ms);
    let mut archiver = tokio::select! {
        started = Archiver::start(options, database, store, Arc::clone(clock), metrics.clone()) => started?,
        // A node that waits for the archiver's lock still stops at once.
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    archiver.run(stop.clone()).await
}

/// `None` when stopped meanwhile.
async fn pause(length: Duration, stop: &mut watch::Receiver<bool>) -> Option<()> {
    tokio::select! {
        () = tokio::time::sleep(length) => Some(()),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}
