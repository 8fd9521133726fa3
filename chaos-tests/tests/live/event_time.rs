//! Event time when the world does not keep to it: partitions without clicks, a clock far ahead, an owner that stalls.

use std::collections::BTreeSet;

use anyhow::Context;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;
use clicktally_kafka::KafkaConnection;
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use rdkafka::producer::FutureRecord;

const MINUTE_MS: u64 = 60_000;
const CAMPAIGN: u64 = 1;

fn shard_of(name: &str) -> (ClickId, ShardId) {
    let id = ClickId::foreign("event-time-trial", CAMPAIGN, name);
    (id, Partitioner::new(1).shard(CAMPAIGN, id))
}

/// A name whose click belongs to this shard.
fn name_for(shard: u16, purpose: &str) -> String {
    let mut names = (0..).map(|number| format!("{purpose}-{shard}-{number}"));
    names.find(|name| shard_of(name).1 == ShardId(shard)).unwrap()
}

/// Writes one click into the partition it belongs to, past the capture and its clock.
async fn write_to_log(trial: &Trial, name: &str, ad_id: u64, event_time_ms: u64) -> u16 {
    let (id, shard) = shard_of(name);
    let click = Click { click_id: id.0, campaign_id: CAMPAIGN, ad_id, event_time_ms, ..Click::default() };
    let producer = KafkaConnection::plaintext(trial.services.kafka.bootstrap()).probe_producer().unwrap();
    let value = encode_record(&[click]);
    let record: FutureRecord<'_, (), _> = FutureRecord::to(RAW_CLICKS).payload(&value).partition(shard.partition());
    producer.send(record, HANG_MAX).await.unwrap();
    shard.0
}

async fn until_published(trial: &Trial, ad_id: u64, minute: u64, clicks: u64) {
    eventually("the window is in PostgreSQL", HANG_MAX, async || {
        let counted = trial.database.stream_counts().await?.get(&(ad_id, minute)).copied();
        anyhow::ensure!(counted == Some(clicks), "{counted:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

/// Fifteen of sixteen partitions have never had a record, and the sixteenth gets one and falls silent.
#[tokio::test]
async fn a_window_fires_although_nearly_all_partitions_never_had_a_click() {
    let trial = Trial::start().await.unwrap();
    let event_time_ms = SystemClock.now_ms() - 2 * MINUTE_MS;
    write_to_log(&trial, "only", 77, event_time_ms).await;
    until_published(&trial, 77, event_time_ms / MINUTE_MS, 1).await;
}

/// Were it believed, a click dated three hours ahead would make everything else of its shard late.
#[tokio::test]
async fn one_clock_far_ahead_is_put_aside_and_makes_nobody_late() {
    let trial = Trial::start().await.unwrap();
    let mut struck = BTreeSet::new();
    for number in 0..64 {
        let ahead_ms = SystemClock.now_ms() + 180 * MINUTE_MS;
        struck.insert(write_to_log(&trial, &format!("ahead-{number}"), 78, ahead_ms).await);
    }
    assert!(struck.len() > 8, "{struck:?}");
    eventually("they are quarantined", HANG_MAX, async || {
        let shards = trial.cluster.client.cluster().await?.shards();
        let quarantined: u64 = shards.values().map(|shard| shard.outcomes.quarantined).sum();
        anyhow::ensure!(quarantined == 64, "{quarantined} of 64");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    // Nothing of it may be late, and each window must fire.
    let event_time_ms = SystemClock.now_ms() - 2 * MINUTE_MS;
    for number in 0..64 {
        write_to_log(&trial, &format!("honest-{number}"), 79, event_time_ms).await;
    }
    until_published(&trial, 79, event_time_ms / MINUTE_MS, 64).await;
    assert!(trial.database.stream_counts().await.unwrap().keys().all(|(ad, _)| *ad != 78));
}

/// Restarts all nodes with a lease that cannot run out in a trial. Placement moves no shard before it has listened for
/// a lease, so the owners stay what they are.
async fn restart_with_endless_lease(trial: &mut Trial) {
    for node in &mut trial.cluster.nodes {
        node.kill().await;
    }
    let lease_ms = (2 * HANG_MAX).as_millis().to_string();
    for node in &mut trial.cluster.nodes {
        node.start(&[("CLICKTALLY_CLUSTER__NODE_LEASE_MS", &lease_ms)]).await.unwrap();
    }
    trial.cluster.wait_ready().await.unwrap();
}

/// A node that owns some shards, not all, and does not lead; and its shards.
async fn owner_that_follows(trial: &Trial) -> (u64, BTreeSet<u16>) {
    eventually("a node that follows owns shards", HANG_MAX, async || {
        let view = trial.cluster.client.cluster().await?;
        let leader = view.groups[0].leader.context("no leader")?;
        let follows = |node: &u64| *node != leader && (1..16).contains(&view.owned_by(*node));
        let node = (1..=3).find(follows).context("only the leader owns shards")?;
        let owned = view.shards().into_iter().filter(|(_, shard)| shard.owner == Some(node));
        Ok::<_, anyhow::Error>((node, owned.map(|(shard, _)| shard).collect()))
    })
    .await
    .unwrap()
}

/// An owner that stalls, and keeps its shards because its lease does not run out, holds its group's windows open,
/// however far the others are.
#[tokio::test]
async fn a_stalled_owner_holds_windows_back_and_nothing_is_lost_or_late() {
    let mut trial = Trial::start().await.unwrap();
    owner_that_follows(&trial).await;
    restart_with_endless_lease(&mut trial).await;
    let (stalled, held) = owner_that_follows(&trial).await;
    trial.cluster.node(stalled).unwrap().pause();

    let others: Vec<String> =
        trial.cluster.nodes.iter().filter(|node| node.id != stalled).map(|node| node.url.clone()).collect();
    let client = trial.cluster.client.through(others);
    let event_time_ms = SystemClock.now_ms() + MINUTE_MS;
    let minute = event_time_ms / MINUTE_MS;
    for number in 0..64 {
        write_to_log(&trial, &format!("held-{number}"), 80, event_time_ms).await;
    }
    // Clicks three minutes younger carry the watermarks of the others past that minute.
    for shard in (0..16).filter(|shard| !held.contains(shard)) {
        write_to_log(&trial, &name_for(shard, "younger"), 81, event_time_ms + 3 * MINUTE_MS).await;
    }
    let passed = |watermark: &str| watermark_ms(watermark) >= (minute + 1) * MINUTE_MS;
    eventually("all other shards have passed the minute", HANG_MAX, async || {
        let view = client.get("/v1/cluster").await?;
        let shards = view["groups"][0]["shards"].as_array().cloned().unwrap_or_default();
        let behind = |shard: &&serde_json::Value| {
            let number = shard["shard"].as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX);
            !held.contains(&number) && !passed(shard["watermark"].as_str().unwrap_or_default())
        };
        let left = shards.iter().filter(behind).count();
        anyhow::ensure!(shards.len() == 16 && left == 0, "{left} have not");
        anyhow::ensure!(
            !passed(view["groups"][0]["watermark"].as_str().unwrap_or_default()),
            "the group has passed it too"
        );
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    assert_eq!(trial.database.stream_counts().await.unwrap().get(&(80, minute)), None, "a timer has closed the window");

    trial.cluster.node(stalled).unwrap().resume();
    for shard in &held {
        write_to_log(&trial, &name_for(*shard, "younger"), 81, event_time_ms + 3 * MINUTE_MS).await;
    }
    until_published(&trial, 80, minute, 64).await;
    let shards = trial.view().await.unwrap().shards();
    assert_eq!(shards.values().map(|shard| shard.outcomes.late).sum::<u64>(), 0);
}

/// Milliseconds of an RFC 3339 time; 0 of what is none.
fn watermark_ms(text: &str) -> u64 {
    chrono::DateTime::parse_from_rfc3339(text).map_or(0, |time| u64::try_from(time.timestamp_millis()).unwrap_or(0))
}
