//! One ad has all the traffic: sixteen shards share it evenly, stage two sees a handful of partial counts, and the ad
//! is named.

use std::collections::BTreeSet;

use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

const AD: u64 = 1;

/// The value of a metric summed over its series and all nodes. `labelled` selects the series that name this label.
async fn metric(trial: &Trial, name: &str, labelled: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for url in &trial.cluster.client.urls {
        let page = reqwest::get(format!("{url}/metrics")).await?.text().await?;
        let lines =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        for line in lines.filter(|line| line.contains(labelled)) {
            sum += line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?;
        }
    }
    Ok(sum)
}

/// What a checkpoint brought is in replicated state a moment before its owner's metrics show it.
async fn until_metrics_show(trial: &Trial, distinct: u64) {
    eventually("every id of the last minutes is remembered, once", HANG_MAX, async || {
        let ids = metric(trial, "clicktally_seen_ids", "").await?;
        anyhow::ensure!(ids == distinct as f64, "{ids} of {distinct}");
        Ok(())
    })
    .await
    .unwrap();
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
    // The load goes on until the ad is named: the answer is about the newest minutes only.
    let load = trial.start_load(&viral).unwrap();
    eventually("the hot ad is named", HANG_MAX, async || {
        let hot = trial.cluster.client.get("/v1/cluster/hot_keys").await?;
        let hottest = &hot["keys"][0];
        anyhow::ensure!((hottest["ad_id"].as_u64(), hottest["share"].as_f64()) == (Some(AD), Some(1.0)), "{hot}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();

    let shards = trial.view().await.unwrap().shards();
    let reads: Vec<u64> = shards.values().map(|shard| shard.outcomes.read).collect();
    let (least, most) = (reads.iter().min().unwrap(), reads.iter().max().unwrap());
    assert!(reads.len() == 16 && most * 10 <= least * 11, "shards differ by more than a tenth: {reads:?}");

    let distinct: u64 = shards.values().map(|shard| shard.outcomes.counted + shard.outcomes.invalid).sum();
    until_metrics_show(&trial, distinct).await;
    let ids = distinct as f64;
    let metric = async |name, labelled| metric(&trial, name, labelled).await.unwrap();

    // Stage two gets one partial count for each shard, checkpoint and minute, however many clicks are in it. How many
    // checkpoints there are depends on the time that counting takes.
    let partials = metric("clicktally_partials_total", "").await;
    let checkpoints = metric("clicktally_checkpoint_seconds_count", "").await;
    let minutes = summary.tally.expected().map(|line| line.minute).collect::<BTreeSet<_>>().len();
    assert!(partials > 0.0 && partials <= checkpoints * minutes as f64, "{partials} in {checkpoints} checkpoints");

    // What an operator can see of it: memory of ids, bytes on the way, freshness.
    // Foreign ids, and so few to a shard that their tables have room to spare: where there are many, nine
    // (`node/src/shard/dedup`).
    let id_bytes = metric("clicktally_seen_id_bytes", "").await;
    assert!(id_bytes > ids && id_bytes <= 16.0 * ids, "{id_bytes} bytes for {ids} ids");
    let bytes = metric("clicktally_checkpoint_bytes_total", "part=\"seen\"").await;
    assert!(bytes > ids && bytes <= 12.0 * ids, "{bytes} bytes in checkpoints for {ids} ids");
    assert!(metric("clicktally_freshness_seconds_count", "").await > 0.0);
}
