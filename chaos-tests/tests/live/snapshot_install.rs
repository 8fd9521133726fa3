//! An empty node joins when the log no longer begins at its beginning: what it holds came in a snapshot, and it counts.

use anyhow::Context;
use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::cluster_client::ClusterView;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

const NEWCOMER: u64 = 4;
/// More than three owners have read and not yet committed when one of them dies.
const COUNTED_AFTER_KILL: u64 = 10_000;

/// Waits until no founder has the start of its log any more; what the least purged one has purged.
async fn until_purged(trial: &Trial) -> u64 {
    let client = &trial.cluster.client;
    eventually("every founder has purged the start of its log", HANG_MAX, async || {
        let mut least = u64::MAX;
        for url in &client.urls {
            let view = client.cluster_as_seen_by(url).await?;
            let group = view.groups.first().context("no group")?;
            let purged = group.purged.filter(|purged| *purged > 0);
            least = least.min(purged.with_context(|| format!("not at {url}, which has applied {:?}", group.applied))?);
        }
        Ok::<_, anyhow::Error>(least)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_empty_node_gets_a_snapshot_where_the_log_is_purged_and_the_count_is_exact() {
    let options = ClusterOptions { snapshot_every_entries: Some(200), ..ClusterOptions::default() };
    let mut trial = Trial::prepare(options).await.unwrap();
    trial.cluster.start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let purged = until_purged(&trial).await;

    let (mut newcomer, peer) = trial.cluster.prepare_newcomer(NEWCOMER).unwrap();
    newcomer.start(&[]).await.unwrap();
    let (asked, url) = (trial.cluster.client.urls[1].clone(), newcomer.url.clone());
    trial.cluster.nodes.push(newcomer);
    let add = ["add", "--node", &NEWCOMER.to_string(), "--peer", &peer.to_string()];
    trial.cluster.command(&asked, &add).await.unwrap();
    eventually("the newcomer has begun behind what was purged, and counts", HANG_MAX, async || {
        let view = trial.cluster.client.cluster_as_seen_by(&url).await?;
        let group = view.groups.first().context("no group")?;
        anyhow::ensure!(
            group.snapshot >= Some(purged) && group.purged >= Some(purged) && group.applied >= group.snapshot,
            "its snapshot ends at {:?} and its log starts behind {:?}, the founders' behind {purged}",
            group.snapshot,
            group.purged
        );
        anyhow::ensure!(view.owned_by(NEWCOMER) > 0, "it owns nothing yet");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    let installed = trial.cluster.node(NEWCOMER).unwrap().has_logged("installing a snapshot").unwrap();
    assert!(installed, "only a snapshot can have told it what was purged");

    // From here on a majority of the four needs the newcomer: its vote, and what it holds.
    let leader = eventually("there is a leader", HANG_MAX, async || {
        trial.cluster.client.cluster().await?.groups[0].leader.context("no leader")
    });
    let leader = leader.await.unwrap();
    trial.cluster.node(if leader == NEWCOMER { 1 } else { leader }).unwrap().kill().await;
    let counted = |view: &ClusterView| view.shards().values().map(|shard| shard.outcomes.read).sum::<u64>();
    let before = counted(&trial.view().await.unwrap());
    eventually("counting goes on with the newcomer's vote", HANG_MAX, async || {
        let after = counted(&trial.cluster.client.cluster().await?);
        anyhow::ensure!(after > before + COUNTED_AFTER_KILL, "{before} clicks read before, {after} now");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
