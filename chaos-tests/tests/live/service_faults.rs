//! The services below: Kafka and PostgreSQL die or freeze, and come back.

use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

async fn until_all_shards_pass(trial: &Trial, offset: u64) {
    eventually("all shards count on", HANG_MAX, async || {
        let view = trial.cluster.client.cluster().await?;
        let slowest = view.shards().values().map(|shard| shard.committed_offset).min().unwrap_or(0);
        anyhow::ensure!(slowest > offset, "one is at {slowest}");
        Ok::<_, anyhow::Error>(slowest)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_count_is_exact_when_kafka_is_killed_and_restarted() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    until_all_shards_pass(&trial, 0).await;
    trial.services.kafka.kill().await;
    trial.services.kafka.restart().await.unwrap();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn counting_goes_on_without_postgresql_which_catches_up() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    until_all_shards_pass(&trial, 0).await;
    trial.services.postgres.kill().await;
    let view = trial.view().await.unwrap();
    let fastest = view.shards().values().map(|shard| shard.committed_offset).max().unwrap();
    // The load goes on, so every shard gets there.
    until_all_shards_pass(&trial, fastest).await;
    trial.services.postgres.restart().await.unwrap();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
