//! More in the log than a group may hold: shards wait for windows to become final and leave, memory stays within its
//! budget, and the count is exact.

use std::time::Duration;

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::node_process::NodeProcess;
use clicktally_chaos_tests::trial::Trial;
use clicktally_node::tools::load::LoadSummary;

/// The least that a node takes for its budget.
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Beyond the budget, and for shards that are behind only (`raft-store/state/src/room.rs`).
const RESERVE_BYTES: u64 = STATE_BYTES_MAX / 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);

async fn backlog(trial: &Trial, more: &[&str]) -> LoadSummary {
    let spread = ["--behind-s=7300", "--span-s=7200", "--rate=0", "--ads=100000"];
    let load = trial.start_log_load(&[&spread, more].concat()).unwrap();
    load.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_backlog_larger_than_the_memory_allowed_waits_for_room_and_is_counted_exactly() {
    let options = ClusterOptions {
        allowed_lateness_ms: 60_000,
        state_bytes_max: Some(STATE_BYTES_MAX),
        ..ClusterOptions::default()
    };
    let mut trial = Trial::prepare(options).await.unwrap();
    trial.make_topics().await.unwrap();
    // Nearly each click is a cell of its own, with a user and a cost. One shard has most of the clicks, so on a
    // machine of any speed the other fifteen read ahead of it. Nothing becomes final before that shard has passed it,
    // and what the others hold by then is far more than the budget: they must wait.
    let slow = backlog(&trial, &["--salts=0", "--clicks=1500000", "--seed=1"]).await;
    let others = "--salts=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";
    let fast = backlog(&trial, &[others, "--clicks=2000000", "--seed=2"]).await;
    let summary = slow.followed_by(fast);
    trial.cluster.start().await.unwrap();
    let mut most = 0;
    let settled = async { trial.settle_and_check(&summary).await.unwrap() };
    let watched = async {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            for url in &trial.cluster.client.urls {
                // A node that does not answer now is asked again.
                let Ok(view) = trial.cluster.client.cluster_as_seen_by(url).await else { continue };
                most = view.groups.iter().map(|group| group.state_bytes).fold(most, u64::max);
            }
        }
    };
    tokio::select! {
        () = settled => {}
        () = watched => {}
    }
    // The looks may miss the highest value, so only the upper bound is a verdict. The shards that had to wait show that
    // the budget was reached.
    assert!(most > 0 && most <= STATE_BYTES_MAX + RESERVE_BYTES, "{most} bytes: memory grew beyond what was allowed");
    let has_waited =
        |node: &NodeProcess| node.has_logged("the shard waits until windows become final and leave").unwrap();
    assert!(trial.cluster.nodes.iter().any(has_waited), "no shard had to wait");
}
