//! One ad has all the traffic: sixteen shards share it evenly, stage two sees a handful of partial counts, and the ad
//! is named.

use std::collections::BTreeSet;

use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

const AD: u64 = 1;

/// The value of a metric summed over its series and all nodes.
async fn metric(trial: &Trial, name: &str) -> f64 {
    let mut sum = 0.0;
    for url in &trial.cluster.client.urls {
        let page = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        let lines =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        sum += lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>();
    }
    sum
}

#[tokio::test]
async fn a_viral_ad_is_shared_evenly_counted_exactly_and_named() {
    let trial = Trial::start().await.unwrap();
    // The clicks are of the newest minutes, so that the detector looks at them. They are half a minute old, so that
    // their windows fire soon.
    let viral = [
        "--ads=1",
        "--campaigns=1",
        "--clicks=200000",
        "--rate=0",
        "--http-percent=20",
        "--http-batch=500",
        "--behind-s=30",
    ];
    let summary = trial.load(&viral).await.unwrap();
    eventually("the hot ad is named", HANG_MAX, async || {
        let hot = trial.cluster.client.get("/v1/cluster/hot_keys").await?;
        let hottest = &hot["keys"][0];
        anyhow::ensure!((hottest["ad_id"].as_u64(), hottest["share"].as_f64()) == (Some(AD), Some(1.0)), "{hot}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    trial.settle_and_check(&summary).await.unwrap();

    let shards = trial.cluster.client.cluster().await.unwrap().shards();
    let reads: Vec<u64> = shards.values().map(|shard| shard.outcomes.read).collect();
    let (least, most) = (reads.iter().min().unwrap(), reads.iter().max().unwrap());
    assert!(reads.len() == 16 && most * 10 <= least * 11, "shards differ by more than a tenth: {reads:?}");

    // Stage two gets one partial count for each shard, checkpoint and minute, however many clicks are in it.
    let partials = metric(&trial, "clicktally_partials_total").await;
    let checkpoints = metric(&trial, "clicktally_checkpoint_seconds_count").await;
    let minutes = summary.tally.expected().map(|line| line.minute).collect::<BTreeSet<_>>().len();
    assert!(partials > 0.0 && partials <= checkpoints * minutes as f64, "{partials} in {checkpoints} checkpoints");
    assert!(partials * 10.0 < summary.counted as f64, "{partials} partials of {} clicks", summary.counted);

    // What an operator can see of it: memory of ids, bytes on the way, freshness.
    let ids = metric(&trial, "clicktally_seen_ids").await;
    let distinct: u64 = shards.values().map(|shard| shard.outcomes.counted + shard.outcomes.invalid).sum();
    assert_eq!(ids, distinct as f64, "every id of the last minutes is remembered, once");
    // Foreign ids, and so few to a shard that their tables have room to spare: where there are many, nine
    // (`node/src/shard/dedup`).
    let id_bytes = metric(&trial, "clicktally_seen_id_bytes").await;
    assert!(id_bytes > ids && id_bytes <= 16.0 * ids, "{id_bytes} bytes for {ids} ids");
    let bytes = metric(&trial, "clicktally_checkpoint_bytes_total").await;
    assert!(bytes > ids && bytes <= 12.0 * ids, "{bytes} bytes in checkpoints for {ids} ids and {partials} partials");
    assert!(metric(&trial, "clicktally_freshness_seconds_count").await > 0.0);
}
