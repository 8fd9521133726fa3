//! More clicks than a group may hold in memory: the shards that are ahead wait for room, memory stays within its
//! budget, and the count is exact.
//!
//! Above the budget *B*, only a shard that holds the group's watermark may add to the state, within a reserve *R*
//! (`raft-store/state/src/room.rs`). Both trials send more than *B* and less than *B + R*. So the budget is reached,
//! and the shards that are behind get the room to catch up, whatever the pace of each shard.

use std::future::Future;
use std::time::Duration;

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually, eventually_by_progress};
use clicktally_chaos_tests::trial::Trial;
use clicktally_kafka::KafkaConnection;
use clicktally_node::tools::load::plan::{DoorKind, Fate, PlannedClick};
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::clock::{Clock, SystemClock};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use rdkafka::producer::FutureRecord;

/// The least that a node takes for its budget.
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const RESERVE_BYTES: u64 = STATE_BYTES_MAX / 8;
const HELD_SHARD: u16 = 5;
const OTHER_SALTS: &str = "--salts=0,1,2,3,4,6,7,8,9,10,11,12,13,14,15";
const LOOK_EVERY: Duration = Duration::from_millis(50);

async fn prepare(allowed_lateness_ms: u64) -> Trial {
    let options =
        ClusterOptions { allowed_lateness_ms, state_bytes_max: Some(STATE_BYTES_MAX), ..ClusterOptions::default() };
    let trial = Trial::prepare(options).await.unwrap();
    trial.make_topics().await.unwrap();
    trial
}

/// Runs to the end of `work`, and checks meanwhile that no replica holds more than was allowed.
async fn within_the_budget(trial: &Trial, work: impl Future<Output = ()>) {
    let watched = async {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            for url in &trial.cluster.client.urls {
                // A node that does not answer now is asked again.
                let Ok(view) = trial.cluster.client.cluster_as_seen_by(url).await else { continue };
                let held = view.groups.iter().map(|group| group.state_bytes).max().unwrap_or(0);
                assert!(held <= STATE_BYTES_MAX + RESERVE_BYTES, "{held} bytes: memory grew beyond what was allowed");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = watched => {}
    }
}

/// The clicks of two hours. Windows become final and leave as fast as the shard furthest behind reads.
#[tokio::test]
async fn a_backlog_larger_than_the_memory_allowed_is_counted_exactly_within_it() {
    let mut trial = prepare(60_000).await;
    // No ad is more popular than another, so nearly each click is a cell of its own. With its user and its cost, a
    // click takes 94 bytes. All of it takes 1.09 times the budget.
    let backlog = [
        "--behind-s=7300",
        "--span-s=7200",
        "--clicks=778000",
        "--rate=0",
        "--record-clicks=1000",
        "--ads=1000000000",
        "--zipf=0",
        "--hot-percent=0",
    ];
    let summary = trial.start_log_load(&backlog).unwrap().end().await.unwrap();
    trial.cluster.start().await.unwrap();
    within_the_budget(&trial, async { trial.settle_and_check(&summary).await.unwrap() }).await;
}

/// One shard is held back before its first click. The others are ahead of it, so they must wait when the budget is used
/// up. They go on when the shard that was held back has passed them.
#[tokio::test]
async fn shards_that_are_ahead_wait_for_room_and_everything_is_counted_exactly() {
    let mut trial = prepare(15 * 60_000).await;
    let held_back = click_of_held_shard();
    write_to_log(&trial, &held_back).await;
    let hold = trial.folder().join("hold");
    std::fs::write(&hold, "").unwrap();
    let setting = format!("shard.drain/{HELD_SHARD}:{}", hold.display());
    for node in &mut trial.cluster.nodes {
        node.start(&[("CLICKTALLY_HOLD", &setting)]).await.unwrap();
    }
    trial.cluster.wait_ready().await.unwrap();
    until_the_others_are_ahead(&trial).await;
    // No ad comes twice, so each click takes 103 bytes whatever the pace. Unlike in a backlog, its id is still kept.
    let load = [
        OTHER_SALTS,
        "--clicks=690000",
        "--rate=0",
        "--behind-s=0",
        "--record-clicks=1000",
        "--ads=1000000000",
        "--zipf=0",
        "--hot-percent=0",
        "--late-percent=0",
        "--beyond-horizon-percent=0",
    ];
    let load = trial.start_log_load(&load).unwrap();
    within_the_budget(&trial, async {
        let mut summary = load.end().await.unwrap();
        until_a_shard_waits(&trial).await;
        std::fs::remove_file(&hold).unwrap();
        summary.tally.add(&held_back);
        summary.counted += 1;
        trial.settle_and_check(&summary).await.unwrap();
    })
    .await;
}

/// A click that the shard to be held back has to read.
fn click_of_held_shard() -> PlannedClick {
    let mut clicks = (0..).map(|number| PlannedClick {
        door: DoorKind::Log,
        fate: Fate::Counted,
        event_id: format!("held-back-{number}"),
        ad_id: 1,
        campaign_id: 1,
        event_time_ms: SystemClock.now_ms(),
        user_agent: "".into(),
        country: "".into(),
        device_type: "".into(),
        ip_address: String::new(),
        user_id: String::new(),
        cost_per_click_micros: 0,
    });
    let is_of_held_shard = |click: &PlannedClick| {
        Partitioner::new(1).shard(click.campaign_id, click.log_click_id()) == ShardId(HELD_SHARD)
    };
    clicks.find(is_of_held_shard).unwrap()
}

async fn write_to_log(trial: &Trial, click: &PlannedClick) {
    let &PlannedClick { ad_id, campaign_id, event_time_ms, .. } = click;
    let (click_id, event_id) = (click.log_click_id().0, click.event_id.clone());
    let value = encode_record(&[Click { click_id, event_id, ad_id, campaign_id, event_time_ms, ..Click::default() }]);
    let producer = KafkaConnection::plaintext(trial.services.kafka.bootstrap()).probe_producer().unwrap();
    let record: FutureRecord<'_, (), _> =
        FutureRecord::to(RAW_CLICKS).payload(&value).partition(ShardId(HELD_SHARD).partition());
    producer.send(record, HANG_MAX).await.unwrap();
}

/// Every other shard has proven its partition empty, so its watermark is ahead of the held shard's.
async fn until_the_others_are_ahead(trial: &Trial) {
    eventually("the other shards are ahead", HANG_MAX, async || {
        let view = trial.cluster.client.get("/v1/cluster").await?;
        let shards = view["groups"][0]["shards"].as_array().cloned().unwrap_or_default();
        let at_the_start = shards.iter().filter(|shard| shard["watermark"] == view["groups"][0]["watermark"]).count();
        anyhow::ensure!(shards.len() == 16 && at_the_start == 1, "{at_the_start} are where the group is");
        anyhow::Ok(())
    })
    .await
    .unwrap();
}

async fn until_a_shard_waits(trial: &Trial) {
    eventually_by_progress("a shard waits for room", async || {
        let mut waits = false;
        for node in &trial.cluster.nodes {
            waits |= node.has_logged("the shard waits until windows become final and leave")?;
        }
        let view = trial.cluster.client.cluster().await?;
        anyhow::ensure!(waits, "{:?} bytes are held", view.groups.iter().map(|group| group.state_bytes).max());
        anyhow::Ok(())
    })
    .await
    .unwrap();
}
