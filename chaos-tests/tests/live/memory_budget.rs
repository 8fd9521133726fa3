//! More in the log than a group may hold: shards wait for windows to become final and leave, memory stays within its
//! budget, and the count is exact.

use std::time::Duration;

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::node_process::NodeProcess;
use clicktally_chaos_tests::trial::Trial;

/// The least that a node takes for its budget.
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Beyond the budget, and for shards that are behind only (`raft-store/state/src/room.rs`).
const RESERVE_BYTES: u64 = STATE_BYTES_MAX / 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_backlog_larger_than_the_memory_allowed_waits_for_room_and_is_counted_exactly() {
    let options = ClusterOptions {
        allowed_lateness_ms: 60_000,
        state_bytes_max: Some(STATE_BYTES_MAX),
        ..ClusterOptions::default()
    };
    let mut trial = Trial::prepare(options).await.unwrap();
    trial.make_topics().await.unwrap();
    // Nearly each click a cell of its own, with a user and a cost: far more than the budget, if all of them were held.
    let backlog =
        ["--http-percent=0", "--behind-s=7300", "--span-s=7200", "--clicks=2500000", "--rate=0", "--ads=100000"];
    let summary = trial.load(&backlog).await.unwrap();
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
    assert!(
        (STATE_BYTES_MAX - RESERVE_BYTES..=STATE_BYTES_MAX + RESERVE_BYTES).contains(&most),
        "{most} bytes at most: either no shard had to wait, or memory grew beyond what was allowed"
    );
    let has_waited =
        |node: &NodeProcess| node.has_logged("the shard waits until windows become final and leave").unwrap();
    assert!(trial.cluster.nodes.iter().any(has_waited), "no shard had to wait");
}
