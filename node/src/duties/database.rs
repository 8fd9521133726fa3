//! Everything that needs PostgreSQL: the connection, then the window writer, the catalogue writer, the archive, and the
//! metrics of reconciliation.
//! Counting never waits for any of it.

use std::sync::Arc;
use std::time::Duration;

use clicktally_billing::archive::{self, ArchiveOptions, ArchiveStore, Archiver};
use clicktally_billing::error::BillingError;
use clicktally_billing::metrics::BillingMetrics;
use clicktally_database::{AdvisoryLock, Database, LockSession};
use clicktally_proto::click_log::{ClickLog, RAW_CLICKS};
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::shard_key::Partitioner;
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::Group;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::reconciliation;
use crate::config::{Config, Role};
use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff, HALT_PAUSE};
use crate::shard::log_identity::{Recognised, recognise};
use crate::sink::kafka_out_topics::KafkaOutTopics;
use crate::sink::postgres_tables::PostgresTables;
use crate::sink::{catalog_writer, singleton, window_writer};

const RETRY_PAUSE: Duration = Duration::from_secs(1);
const LAG_EVERY: Duration = Duration::from_secs(15);

/// Runs until stopped.
pub async fn run(
    config: Config,
    groups: Arc<[Group]>,
    click_log: Arc<dyn ClickLog>,
    clock: Arc<dyn Clock>,
    halts: Arc<Halts>,
    mut stop: watch::Receiver<bool>,
) {
    let Some(database) = connect(&config.postgres.url, &halts, &mut stop).await else { return };
    let mut duties = JoinSet::new();
    let figures = reconciliation::show(database.clone(), Arc::clone(&clock), Arc::clone(&halts), stop.clone());
    duties.spawn(supervised(Part::Reconciliation, &halts, figures));
    if config.has(Role::Serve) {
        let tables = Arc::new(PostgresTables::new(database.clone(), Arc::clone(&halts)));
        let topics = Arc::new(KafkaOutTopics::new(config.log.connection(), Arc::clone(&clock)));
        let windows = window_writer::run(tables, topics, Arc::clone(&halts), stop.clone());
        duties.spawn(supervised(Part::WindowWriter, &halts, windows));
        let terms = catalog_writer::run(
            Arc::clone(&groups),
            database.clone(),
            Arc::clone(&clock),
            Arc::clone(&halts),
            stop.clone(),
        );
        duties.spawn(supervised(Part::CatalogueWriter, &halts, terms));
    }
    if config.has(Role::Archive) {
        let archive = archive(config, groups, click_log, database, clock, Arc::clone(&halts), stop.clone());
        duties.spawn(supervised(Part::Archive, &halts, archive));
    }
    while duties.join_next().await.is_some() {}
}

fn supervised(
    part: Part,
    halts: &Arc<Halts>,
    duty: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let halts = Arc::clone(halts);
    async move { halts.supervise(part, duty).await }
}

async fn connect(url: &str, halts: &Halts, stop: &mut watch::Receiver<bool>) -> Option<Database> {
    let mut backoff = Backoff::steady(RETRY_PAUSE);
    let mut is_told = false;
    loop {
        let error = match Database::connect_and_migrate(url).await {
            Ok(database) => {
                halts.works(Part::PostgreSql);
                return Some(database);
            }
            Err(error) => error,
        };
        if error.next_move() != NextMove::Retry {
            halts.halted(Part::PostgreSql, &error);
        } else if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(%error, "no PostgreSQL yet: counting goes on, reports and invoices are delayed");
        }
        retry::pause(backoff.after(error.next_move()), stop).await?;
    }
}

async fn archive(
    config: Config,
    groups: Arc<[Group]>,
    click_log: Arc<dyn ClickLog>,
    database: Database,
    clock: Arc<dyn Clock>,
    halts: Arc<Halts>,
    mut stop: watch::Receiver<bool>,
) {
    let metrics = match BillingMetrics::register(prometheus::default_registry()) {
        Ok(metrics) => metrics,
        Err(error) => {
            halts.halted(Part::Archive, &error);
            return;
        }
    };
    let lag = watch_archive_lag(config.clone(), database.clone(), metrics.clone(), stop.clone());
    let _lag = AbortOnDropHandle::new(tokio::spawn(lag));
    let mut backoff = Backoff::steady(RETRY_PAUSE);
    while let Some(session) =
        singleton::obtain(&database, AdvisoryLock::Archiver, Part::Archive, &halts, &mut stop).await
    {
        let ended = {
            let mut attempt = Box::pin(async {
                recognise_log(&groups, click_log.as_ref()).await?;
                archive_until_error(&config, session, &database, &clock, &metrics, stop.clone()).await
            });
            tokio::select! {
                ended = &mut attempt => ended,
                () = tokio::time::sleep(HALT_PAUSE) => {
                    halts.works(Part::Archive);
                    attempt.await
                }
            }
        };
        match ended {
            Ok(()) => return,
            Err(error) => {
                if error.next_move() == NextMove::Retry {
                    tracing::warn!(%error, "the archive was interrupted; it reads on from its manifest");
                } else {
                    halts.halted(Part::Archive, &error);
                }
                if retry::pause(backoff.after(error.next_move()), &mut stop).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// On every node with the archive role, also while its archiver stands by or has halted.
async fn watch_archive_lag(
    config: Config,
    database: Database,
    metrics: BillingMetrics,
    mut stop: watch::Receiver<bool>,
) {
    let (log, partitioner) = (config.log.connection(), Partitioner::new(config.cluster.groups));
    loop {
        if let Err(error) = archive::show_lag(&log, RAW_CLICKS, partitioner, &database, &metrics).await {
            tracing::debug!(%error, "cannot tell how far the archive is behind the log");
        }
        if retry::pause(LAG_EVERY, &mut stop).await.is_none() {
            return;
        }
    }
}

/// The manifest goes by offsets, too, so the archive reads the topic that the shards count, and no other. A group that
/// has not named its log yet does not hold the archive back.
async fn recognise_log(groups: &[Group], click_log: &dyn ClickLog) -> Result<(), BillingError> {
    let found = click_log.log_id().await?;
    for group in groups {
        if let Recognised::Other(error) = recognise(group.read(|state| state.log_id()), found) {
            return Err(error.into());
        }
    }
    Ok(())
}

async fn archive_until_error(
    config: &Config,
    session: LockSession,
    database: &Database,
    clock: &Arc<dyn Clock>,
    metrics: &BillingMetrics,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BillingError> {
    let store = ArchiveStore::open(&config.archive_location())?;
    let mut options = ArchiveOptions::new(config.log.connection(), Partitioner::new(config.cluster.groups));
    options.fetch = config.log.fetch;
    options.file_records_max = config.archive.flush_rows;
    options.file_age_max = Duration::from_millis(config.archive.flush_ms);
    let (clock, metrics) = (Arc::clone(clock), metrics.clone());
    let mut archiver = tokio::select! {
        started = Archiver::start(options, session, database, store, clock, metrics) => started?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    archiver.run(stop).await
}
