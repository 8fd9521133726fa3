//! The two services, and a fresh database, topic and archive folder for each claim.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clicktally_billing::archive::{ArchiveOptions, ArchiveStore, Archiver, log_end_offsets};
use clicktally_billing::metrics::BillingMetrics;
use clicktally_database::{AdvisoryLock, Database, LockSession};
use clicktally_embedded::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use clicktally_kafka::KafkaConnection;
use clicktally_proto::clock::SystemClock;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use sqlx::{AssertSqlSafe, PgPool};

use crate::clicks::HANG_MAX;

/// Set for a child process that archives until it dies: `brokers topic database-url folder records-per-file`.
const CHILD: &str = "CLICKTALLY_TEST_ARCHIVER";

pub(crate) struct Services {
    kafka: Kafka,
    postgres: Postgres,
    _folder: tempfile::TempDir,
}

impl Services {
    pub(crate) async fn stop(mut self) {
        self.kafka.stop().await.unwrap();
        self.postgres.stop().await.unwrap();
    }
}

pub(crate) struct Environment {
    pub(crate) brokers: String,
    pub(crate) database_url: String,
    worlds: AtomicU32,
}

/// One claim's own corner.
pub(crate) struct World {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) database_url: String,
    pub(crate) database: Database,
    /// The claims' own look at the tables.
    pub(crate) pool: PgPool,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: ArchiveStore,
    pub(crate) metrics: BillingMetrics,
}

pub(crate) fn partitioner() -> Partitioner {
    Partitioner::new(1)
}

impl Environment {
    pub(crate) async fn start() -> (Services, Arc<Environment>) {
        let folder = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(KafkaOptions::for_tests(folder.path().join("kafka"))).await.unwrap();
        let postgres = Postgres::start(PostgresOptions::for_tests(folder.path().join("postgres"))).await.unwrap();
        let environment =
            Environment { brokers: kafka.bootstrap(), database_url: postgres.url(), worlds: AtomicU32::new(0) };
        (Services { kafka, postgres, _folder: folder }, Arc::new(environment))
    }

    pub(crate) async fn world(&self) -> World {
        let number = self.worlds.fetch_add(1, Ordering::Relaxed);
        let (topic, name) = (format!("raw_{number}"), format!("world_{number}"));
        let admin = PgPool::connect(&self.database_url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
        let (server, _) = self.database_url.rsplit_once('/').unwrap();
        let database_url = format!("{server}/{name}");
        create_topic(&self.brokers, &topic).await;
        let folder = tempfile::tempdir().unwrap();
        World {
            brokers: self.brokers.clone(),
            topic,
            database: Database::connect_and_migrate(&database_url).await.unwrap(),
            pool: PgPool::connect(&database_url).await.unwrap(),
            database_url,
            store: ArchiveStore::open(folder.path().to_str().unwrap()).unwrap(),
            folder,
            metrics: BillingMetrics::register(&prometheus::Registry::new()).unwrap(),
        }
    }
}

impl World {
    pub(crate) fn archive_options(&self, file_records_max: usize) -> ArchiveOptions {
        archive_options(&self.brokers, &self.topic, file_records_max)
    }

    pub(crate) async fn archiver(&self, file_records_max: usize) -> Archiver {
        let options = self.archive_options(file_records_max);
        let clock = Arc::new(SystemClock);
        let session = duty(&self.database).await;
        Archiver::start(options, session, &self.database, self.store.clone(), clock, self.metrics.clone())
            .await
            .unwrap()
    }

    pub(crate) async fn log_ends(&self) -> BTreeMap<ShardId, u64> {
        log_end_offsets(&KafkaConnection::plaintext(&self.brokers), &self.topic, partitioner()).await.unwrap()
    }

    /// Archives everything that is in the log now.
    pub(crate) async fn archive_all(&self) {
        let ends = self.log_ends().await;
        self.archiver(200).await.archive_until(&ends).await.unwrap();
    }

    /// Archives in another process that is killed at a point; true if it was.
    pub(crate) fn archive_killed_at(&self, point: &str, file_records_max: usize) -> bool {
        let folder = self.folder.path().to_str().unwrap();
        let task = format!("{} {} {} {folder} {file_records_max}", self.brokers, self.topic, self.database_url);
        let status = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, task)
            .env("CLICKTALLY_FAIL_AT", point)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        !status.success()
    }
}

/// The duty of archiving, once no other session has it. PostgreSQL may take a moment to see that a process died.
pub(crate) async fn duty(database: &Database) -> LockSession {
    let obtained = async {
        loop {
            if let Some(session) = database.try_lock(AdvisoryLock::Archiver).await.unwrap() {
                return session;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG_MAX, obtained).await.expect("the duty is free")
}

fn archive_options(brokers: &str, topic: &str, file_records_max: usize) -> ArchiveOptions {
    ArchiveOptions {
        topic: topic.to_owned(),
        file_records_max,
        ..ArchiveOptions::new(KafkaConnection::plaintext(brokers), partitioner())
    }
}

/// If this process was started as a killable archiver, it archives everything in the log and this returns true.
pub(crate) fn archive_as_child(runtime: &tokio::runtime::Runtime) -> bool {
    let Ok(task) = std::env::var(CHILD) else { return false };
    let [brokers, topic, database_url, folder, file_records_max] = task.split(' ').collect::<Vec<_>>()[..] else {
        panic!("a malformed task: {task}");
    };
    runtime.block_on(async {
        let database = Database::connect_and_migrate(database_url).await.unwrap();
        let options = archive_options(brokers, topic, file_records_max.parse().unwrap());
        let metrics = BillingMetrics::register(&prometheus::Registry::new()).unwrap();
        let store = ArchiveStore::open(folder).unwrap();
        let ends = log_end_offsets(&KafkaConnection::plaintext(brokers), topic, partitioner()).await.unwrap();
        let session = duty(&database).await;
        let mut archiver =
            Archiver::start(options, session, &database, store, Arc::new(SystemClock), metrics).await.unwrap();
        archiver.archive_until(&ends).await.unwrap();
    });
    true
}

async fn create_topic(brokers: &str, topic: &str) {
    let admin = KafkaConnection::plaintext(brokers).admin().unwrap();
    let new = NewTopic::new(topic, partitioner().partitions(), TopicReplication::Fixed(1));
    for outcome in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
        outcome.unwrap();
    }
}
