//! Nodes that die, freeze, and come back.

use anyhow::Context;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

async fn leader(trial: &Trial) -> u64 {
    eventually("there is a leader", HANG_MAX, async || {
        let view = trial.cluster.client.cluster().await?;
        view.groups[0].leader.context("no leader")
    })
    .await
    .unwrap()
}

async fn until_node_owns_nothing(trial: &Trial, node: u64) {
    eventually("its shards have moved", HANG_MAX, async || {
        let owned = trial.cluster.client.cluster().await?.owned_by(node);
        anyhow::ensure!(owned == 0, "it still owns {owned}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_undisturbed_cluster_counts_exactly() {
    let trial = Trial::start().await.unwrap();
    let summary = trial.load(&[]).await.unwrap();
    assert!(summary.late_beyond > 0 && summary.duplicates > 0 && summary.malformed > 0);
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn the_count_is_exact_when_the_raft_leader_is_killed() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let victim = leader(&trial).await;
    trial.cluster.node(victim).unwrap().kill().await;
    until_node_owns_nothing(&trial, victim).await;
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn a_frozen_owner_that_wakes_up_changes_nothing() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let leader = leader(&trial).await;
    let owners = trial.shards_by_owner().await.unwrap();
    let zombie = *owners.keys().find(|node| **node != leader).expect("shards are spread over nodes");
    trial.cluster.node(zombie).unwrap().pause();
    until_node_owns_nothing(&trial, zombie).await;
    // It wakes up with clicks in hand that its successors are counting.
    trial.cluster.node(zombie).unwrap().resume();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn the_count_is_exact_when_the_whole_cluster_is_killed_and_restarted() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    eventually("something is counted", HANG_MAX, async || {
        let view = trial.cluster.client.cluster().await?;
        anyhow::ensure!(view.shards().values().all(|shard| shard.committed_offset > 0), "not all shards yet");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    for node in &mut trial.cluster.nodes {
        node.kill().await;
    }
    trial.cluster.start().await.unwrap();
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
