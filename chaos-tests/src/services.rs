//! The two real services below a cluster, in one directory.

use std::path::Path;

use clicktally_embedded::{Kafka, KafkaOptions, Postgres, PostgresOptions};

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

    async fn start(kafka: KafkaOptions, postgres: PostgresOptions) -> anyhow::Result<Services> {
        let (kafka, postgres) = tokio::try_join!(Kafka::start(kafka), Postgres::start(postgres))?;
        Ok(Services { kafka, postgres })
    }
}
