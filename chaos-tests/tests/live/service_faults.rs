//! The services below: Kafka and PostgreSQL die or freeze, and come back.

use std::time::Duration;

use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;
use serde_json::json;

const FREEZES: u64 = 2;
/// Long enough for clients to give up their requests, their connections and what they know of the partitions.
const FROZEN: Duration = Duration::from_secs(15);

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

/// A client of the log may keep having seen a partition without a leader, and then never asks for its end again.
///
/// Not part of `make test` yet: after some freezes a node's producer times out for minutes, so that its capture takes
/// no click. It is to be replaced as the client that asks questions is.
#[tokio::test]
#[ignore = "a producer may stay stuck after the freeze: make trial NAME=every_node_recovers"]
async fn every_node_recovers_when_kafka_stood_still() {
    let trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    for _ in 0..FREEZES {
        trial.services.kafka.pause();
        tokio::time::sleep(FROZEN).await;
        trial.services.kafka.resume();
        eventually("every node is sure of every end of the log", HANG_MAX, async || {
            for node in &trial.cluster.nodes {
                let view = trial.cluster.client.cluster_as_seen_by(&node.url).await?;
                let unsure = view.shards().values().filter(|shard| shard.lag_records.is_none()).count();
                anyhow::ensure!(unsure == 0, "node {} cannot tell the lag of {unsure} shards", node.id);
            }
            Ok(())
        })
        .await
        .unwrap();
    }
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

#[tokio::test]
async fn every_price_that_was_in_force_while_postgresql_was_away_reaches_the_batch() {
    let mut trial = Trial::start().await.unwrap();
    let client = reqwest::Client::new();
    let set_price = async |micros: i64| {
        let money = |micros: i64| json!({ "amount_micros": micros, "currency": "USD" });
        let terms = json!({
            "advertiser_id": 1, "name": "spring", "cost_per_click": money(micros), "budget": money(5_000_000),
        });
        let url = format!("{}/v1/campaigns/9001", trial.cluster.nodes[0].url);
        let set = async || client.put(&url).json(&terms).send().await?.error_for_status();
        eventually("the price is set", HANG_MAX, set).await.unwrap();
    };
    // Replaced terms are kept from the writer's first report on.
    eventually("the writer reports", HANG_MAX, async || {
        anyhow::ensure!(trial.database.groups_exported().await? == 1, "nothing is reported");
        Ok(())
    })
    .await
    .unwrap();
    set_price(5).await;
    trial.services.postgres.pause();
    for micros in [3, 2] {
        set_price(micros).await;
    }
    // The writer dies with its connection; another one takes over.
    trial.services.postgres.resume();
    trial.services.postgres.kill().await;
    set_price(7).await;
    set_price(1).await;
    trial.services.postgres.restart().await.unwrap();
    eventually("all prices are in PostgreSQL", HANG_MAX, async || {
        let prices = trial.database.prices(9_001).await?;
        anyhow::ensure!(prices == [5, 3, 2, 7, 1], "PostgreSQL has {prices:?}");
        Ok(())
    })
    .await
    .unwrap();
}
