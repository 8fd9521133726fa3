//! `kill -9` at every step between reading a click and writing its window: the count stays exact.

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::eventually::HANG_MAX;
use clicktally_chaos_tests::trial::Trial;

/// Which nodes die when they reach the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    /// Every node does this work, so one is enough.
    One,
    /// One node at a time does this work, whichever it is: all are armed, and the ones that do not get there live on.
    All,
}

/// Starts all nodes, armed; under load one dies at the point; restarted without it, it comes back.
async fn assert_exact_after_dying_at(point: &str, armed: Armed) {
    let mut trial = Trial::prepare(ClusterOptions::default()).await.unwrap();
    for node in &mut trial.cluster.nodes {
        let is_armed = armed == Armed::All || node.id == 2;
        let environment: &[(&str, &str)] = if is_armed { &[("CLICKTALLY_FAIL_AT", point)] } else { &[] };
        node.start(environment).await.unwrap();
    }
    // The load goes on until a node has died, so every count is reached on a machine of any speed.
    let load = trial.start_load(&[]).unwrap();
    let died = trial.cluster.first_to_exit(HANG_MAX).await.unwrap();
    trial.cluster.node(died).unwrap().start(&[]).await.unwrap();
    // Any other node that dies at the fail point is restarted as well, until the load has ended.
    let mut load_end = std::pin::pin!(load.end());
    let summary = loop {
        tokio::select! {
            summary = &mut load_end => break summary.unwrap(),
            died = trial.cluster.first_to_exit(HANG_MAX) => {
                let died = died.unwrap();
                trial.cluster.node(died).unwrap().start(&[]).await.unwrap();
            }
        }
    };
    for node in &mut trial.cluster.nodes {
        // No armed node is left to die during the check.
        node.kill().await;
        node.start(&[]).await.unwrap();
    }
    trial.cluster.wait_ready().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
    trial.check_archive().await.unwrap();
}

macro_rules! dying_at {
    ($($name:ident: $armed:ident $point:literal,)*) => {$(
        #[tokio::test]
        async fn $name() {
            assert_exact_after_dying_at($point, Armed::$armed).await;
        }
    )*};
}

#[tokio::test]
async fn exact_after_all_nodes_die_before_a_proposal() {
    assert_exact_after_dying_at("checkpoint.before_propose:150", Armed::All).await;
}

// The counts let some clicks be counted before a node dies.
dying_at! {
    exact_after_dying_with_polled_records_in_hand: One "shard.after_poll:400",
    exact_after_dying_with_folded_clicks_in_hand: One "shard.after_fold:150",
    exact_after_dying_before_a_proposal: One "checkpoint.before_propose:100",
    exact_after_dying_before_an_outcome_is_seen: One "checkpoint.after_commit:100",
    exact_after_dying_between_append_and_commit: One "raft.after_append:400",
    exact_after_dying_before_an_apply: One "raft.before_apply:400",
    exact_after_dying_after_an_apply: One "raft.after_apply:400",
    exact_after_dying_between_a_publication_and_its_progress: All "sink.after_publish:4",
    exact_after_dying_before_rows_are_committed: All "writer.before_commit:3",
    exact_after_dying_after_rows_are_committed: All "writer.after_commit:3",
    exact_after_dying_between_an_upload_and_its_manifest: All "archive.after_upload:3",
    exact_after_dying_after_a_manifest: All "archive.after_manifest:3",
}
