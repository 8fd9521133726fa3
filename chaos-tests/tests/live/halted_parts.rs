//! What stands still until an operator acts says so: in the log, the metric, `/readyz` and `cluster status`. It says so
//! no longer once the operator has acted.

use std::collections::BTreeSet;

use clicktally_chaos_tests::cluster::binary_beside_this_program;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click_log::{RAW_CLICKS, WINDOW_COUNTS};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

/// Tables without which a part cannot work, and that part.
const TABLES: [(&str, &str); 3] = [
    ("reports.ad_minute", "window writer"),
    ("catalog.campaign_terms", "catalogue writer"),
    ("billing.archive_manifest", "archive"),
];

async fn sql(trial: &Trial, statement: String) {
    let pool = sqlx::PgPool::connect(&trial.services.postgres.url()).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
}

fn parts(list: &Value) -> BTreeSet<String> {
    let parts = list.as_array().into_iter().flatten().filter_map(|part| part["part"].as_str());
    parts.map(str::to_owned).collect()
}

/// Where a node says what is halted, and what each place names. The log keeps what is over, so only what is expected is
/// looked for there.
async fn places(trial: &Trial, expected: &[&str]) -> anyhow::Result<[(&'static str, BTreeSet<String>); 4]> {
    let client = reqwest::Client::new();
    let (mut ready, mut metric, mut log) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for node in &trial.cluster.nodes {
        let health: Value = client.get(format!("{}/readyz", node.url)).send().await?.json().await?;
        let halted = parts(&health["halted"]);
        let status = if halted.is_empty() { "ready" } else { "degraded" };
        anyhow::ensure!(health["status"] == status, "node {} answers {health}", node.id);
        ready.extend(halted);
        let page = client.get(format!("{}/metrics", node.url)).send().await?.text().await?;
        let halted = page.lines().filter(|line| line.starts_with("clicktally_halted{") && !line.ends_with(" 0"));
        metric.extend(halted.filter_map(|line| Some(line.split_once("part=\"")?.1.split_once('"')?.0.to_owned())));
        for part in expected {
            if node.has_logged(&format!("\"{part}\""))? {
                log.insert((*part).to_owned());
            }
        }
    }
    let url = &trial.cluster.nodes[0].url;
    let status = tokio::process::Command::new(binary_beside_this_program()?)
        .args(["--output", "json", "cluster", "status", "--url", url])
        .output()
        .await?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    Ok([("/readyz", ready), ("/metrics", metric), ("the log", log), ("cluster status", parts(&status["halted"]))])
}

async fn until_said_everywhere(trial: &Trial, expected: &[&str]) {
    eventually("it is said everywhere", HANG_MAX, async || {
        let all: BTreeSet<String> = expected.iter().map(|part| (*part).to_owned()).collect();
        for (place, said) in places(trial, expected).await? {
            anyhow::ensure!(said == all, "{place} names {said:?} instead of {all:?}");
        }
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", trial.cluster.log_tails()));
}

#[tokio::test]
async fn duties_that_halt_say_so_and_go_on_once_the_operator_has_acted() {
    let trial = Trial::start().await.unwrap();
    until_said_everywhere(&trial, &[]).await;
    let load = trial.start_load(&[]).unwrap();
    for (table, _) in TABLES {
        let (_, name) = table.split_once('.').unwrap();
        sql(&trial, format!("ALTER TABLE {table} RENAME TO {name}_away")).await;
    }
    let money = |micros: i64| json!({ "amount_micros": micros, "currency": "USD" });
    let terms = json!({
        "campaign_id": 9_001, "advertiser_id": 1, "name": "new terms", "cost_per_click": money(10_000),
        "budget": money(5_000_000),
    });
    trial.cluster.client.post("/v1/campaigns", &terms).await.unwrap();
    until_said_everywhere(&trial, &TABLES.map(|(_, part)| part)).await;

    for (table, _) in TABLES {
        let (schema, name) = table.split_once('.').unwrap();
        sql(&trial, format!("ALTER TABLE {schema}.{name}_away RENAME TO {name}")).await;
    }
    until_said_everywhere(&trial, &[]).await;
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn shards_whose_records_are_lost_say_so_show_their_lag_and_move_when_told() {
    let mut trial = Trial::start().await.unwrap();
    let summary = trial.load(&[]).await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
    trial.cluster.stop().await.unwrap();
    trial.start_log_load(&[]).unwrap().end().await.unwrap();
    // Retention overtakes the shards while no node runs.
    let admin = KafkaConnection::plaintext(trial.services.kafka.bootstrap()).admin().unwrap();
    let mut cut = TopicPartitionList::new();
    for shard in 0..16 {
        cut.add_partition_offset(RAW_CLICKS, shard, Offset::End).unwrap();
    }
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    trial.cluster.start().await.unwrap();
    until_said_everywhere(&trial, &["shard", "archive"]).await;
    let view = trial.view().await.unwrap();
    for (shard, view) in view.shards() {
        assert!(view.lag_records.is_some_and(|lag| lag > 0), "shard {shard} is {:?} behind", view.lag_records);
    }
    // A halted shard obeys a drain like any other: its records may be readable elsewhere.
    let url = format!("{}/v1/cluster/nodes/1/drain", trial.cluster.nodes[0].url);
    let drain = async || reqwest::Client::new().post(&url).send().await?.error_for_status();
    eventually("node 1 is to be drained", HANG_MAX, drain).await.unwrap();
    eventually("node 1 is empty", HANG_MAX, async || {
        let owned = trial.view().await?.owned_by(1);
        anyhow::ensure!(owned == 0, "it still owns {owned} shards");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_topic_that_takes_no_windows_is_named() {
    let trial = Trial::start().await.unwrap();
    let admin = KafkaConnection::plaintext(trial.services.kafka.bootstrap()).admin().unwrap();
    let limited = |bytes| AlterConfig::new(ResourceSpecifier::Topic(WINDOW_COUNTS)).set("max.message.bytes", bytes);
    for answer in admin.alter_configs(&[limited("1")], &AdminOptions::new()).await.unwrap() {
        answer.unwrap();
    }
    let load = trial.start_load(&[]).unwrap();
    until_said_everywhere(&trial, &["window publisher"]).await;
    for answer in admin.alter_configs(&[limited("1048576")], &AdminOptions::new()).await.unwrap() {
        answer.unwrap();
    }
    until_said_everywhere(&trial, &[]).await;
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
