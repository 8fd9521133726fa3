//! Nodes join and leave under load, by the command line, and the count stays exact.

use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

async fn until_shares(trial: &Trial, node: u64, is_owner: bool) {
    eventually("shards have moved", HANG_MAX, async || {
        let owned = trial.cluster.client.cluster().await?.owned_by(node);
        anyhow::ensure!((owned > 0) == is_owner, "node {node} owns {owned}");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_node_joins_and_another_leaves_under_load_and_the_count_is_exact() {
    let mut trial = Trial::start().await.unwrap();
    let load = trial.start_load(&[]).unwrap();
    let (mut newcomer, peer) = trial.cluster.prepare_newcomer(4).unwrap();
    let asked = trial.cluster.client.urls[1].clone();
    newcomer.start(&[]).await.unwrap();
    trial.cluster.nodes.push(newcomer);
    trial.cluster.command(&asked, &["add", "--node", "4", "--peer", &peer.to_string()]).await.unwrap();
    until_shares(&trial, 4, true).await;
    trial.cluster.node(3).unwrap().kill().await;
    trial.cluster.command(&asked, &["remove", "--node", "3"]).await.unwrap();
    until_shares(&trial, 3, false).await;
    let summary = load.end().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
