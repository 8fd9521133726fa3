//! The two real services below a cluster, in one directory.

use std::path::Path;

use anyhow::Context;
use clicktally_embedded::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click_log::{LATE_CLICKS, QUARANTINE, WINDOW_COUNTS};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;

use crate::eventually::{HANG_MAX, eventually};

#[derive(Debug)]
pub struct Services {
    pub kafka: Kafka,
    pub postgres: Postgres,
}

impl Services {
    /// Small and quick to start; PostgreSQL does not sync to disk.
    pub async fn for_tests(dir: &Path) -> anyhow::Result<Services> {
        Services::start(KafkaOptions::for_tests(dir.join("kafka")), PostgresOptions::for_tests(dir.join("postgres")))
            .await
    }

    /// Meant to carry load.
    pub async fn serving(dir: &Path) -> anyhow::Result<Services> {
        Services::start(KafkaOptions::serving(dir.join("kafka")), PostgresOptions::serving(dir.join("postgres"))).await
    }

    /// Deletes the topics that nodes write to, and starts another PostgreSQL, empty, in `dir`.
    pub async fn forget_all_but_the_log(&mut self, dir: &Path) -> anyhow::Result<()> {
        let log = KafkaConnection::plaintext(self.kafka.bootstrap());
        let derived = [WINDOW_COUNTS, LATE_CLICKS, QUARANTINE];
        let admin = log.admin()?;
        for deleted in admin.delete_topics(&derived, &AdminOptions::new()).await? {
            deleted.map_err(|(topic, code)| anyhow::anyhow!("cannot delete topic {topic}: {code}"))?;
        }
        let consumer = log.metadata_reader()?;
        // A node must not find a topic that is about to go.
        eventually("the topics are gone", HANG_MAX, async || {
            let metadata = consumer.fetch_metadata(None, HANG_MAX)?;
            let left = metadata.topics().iter().find(|topic| derived.contains(&topic.name()));
            anyhow::ensure!(left.is_none(), "{} is still there", left.map_or("", |topic| topic.name()));
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        let data = tempfile::Builder::new().prefix("postgres-").tempdir_in(dir)?.keep();
        let another = Postgres::start(PostgresOptions::for_tests(data)).await.context("another PostgreSQL")?;
        std::mem::replace(&mut self.postgres, another).stop().await?;
        Ok(())
    }

    async fn start(kafka: KafkaOptions, postgres: PostgresOptions) -> anyhow::Result<Services> {
        let (kafka, postgres) = tokio::try_join!(Kafka::start(kafka), Postgres::start(postgres))?;
        Ok(Services { kafka, postgres })
    }
}
