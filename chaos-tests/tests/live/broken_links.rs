//! The three links of exactly-once, each broken on purpose: the check must turn red. A check that cannot fail proves
//! nothing.

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::eventually::{HANG_MAX, eventually};
use clicktally_chaos_tests::trial::Trial;

async fn assert_the_check_notices(environment: &[(&str, &str)]) {
    let mut trial = Trial::prepare(ClusterOptions::default()).await.unwrap();
    for node in &mut trial.cluster.nodes {
        node.start(environment).await.unwrap();
    }
    trial.cluster.wait_ready().await.unwrap();
    let summary = trial.load(&["--duplicate-percent=10"]).await.unwrap();
    trial.settle(&summary).await.unwrap();
    eventually("the count goes wrong", HANG_MAX, async || {
        let violations = trial.violations(&summary).await?;
        anyhow::ensure!(!violations.is_empty(), "the counts are right, although a link is broken");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_identity_duplicates_are_counted_and_noticed() {
    assert_the_check_notices(&[("CLICKTALLY_BREAK", "identity")]).await;
}

#[tokio::test]
async fn without_the_offset_fence_a_retried_checkpoint_counts_twice_and_is_noticed() {
    assert_the_check_notices(&[("CLICKTALLY_BREAK", "offset"), ("CLICKTALLY_LOSE", "checkpoint.ack:3")]).await;
}

#[tokio::test]
async fn without_the_revision_guard_rows_add_up_and_are_noticed() {
    assert_the_check_notices(&[("CLICKTALLY_BREAK", "sink")]).await;
}

#[tokio::test]
async fn with_all_links_whole_lost_acknowledgements_change_nothing() {
    let mut trial = Trial::prepare(ClusterOptions::default()).await.unwrap();
    for node in &mut trial.cluster.nodes {
        node.start(&[("CLICKTALLY_LOSE", "checkpoint.ack:3")]).await.unwrap();
    }
    trial.cluster.wait_ready().await.unwrap();
    let summary = trial.load(&[]).await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}
