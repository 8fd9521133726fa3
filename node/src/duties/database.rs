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
use crate::retry::{self, Backoff};
use crate::sink::kafka_out_topics::KafkaOutTopics;
use crate::sink::postgres_tables::PostgresTables;
use crate::sink::{catalog_writer, window_writer};

const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
    let mut backoff = Backoff::steady(RETRY_PAUSE);
    let mut is_told = false;
    loop {
        let error = match Database::connect_and_migrate(url).await {
            Ok(database) => return Some(database),
            Err(error) => error,
        };
        if error.next_move() != NextMove::Retry {
            tracing::error!(%error, "PostgreSQL cannot be used: reports and invoices are delayed until an operator acts");
        } else if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(%error, "no PostgreSQL yet: counting goes on, reports and invoices are delayed");
        }
        retry::pause(backoff.after(error.next_move()), stop).await?;
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
    let mut backoff = Backoff::steady(RETRY_PAUSE);
    loop {
        match archive_until_error(&config, &database, &clock, &metrics, &mut stop).await {
            Ok(()) => return,
            Err(error) => {
                if error.next_move() == NextMove::Retry {
                    tracing::warn!(%error, "the archive was interrupted; it reads on from its manifest");
                } else {
                    tracing::error!(%error, "nothing is archived until an operator acts");
                }
                if retry::pause(backoff.after(error.next_move()), &mut stop).await.is_none() {
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
