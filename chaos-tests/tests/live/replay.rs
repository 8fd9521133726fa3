//! Old logs: a backlog of hours is counted as it was meant, and a log replayed at full speed counts the same as it
//! did live.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_chaos_tests::cluster::ClusterOptions;
use clicktally_chaos_tests::cluster_client::OutcomesView;
use clicktally_chaos_tests::oracle;
use clicktally_chaos_tests::trial::Trial;

/// Everything that a cluster concluded from the log, but for revisions: these count the steps it took.
#[derive(Debug, PartialEq)]
struct Conclusions {
    /// By minute, ad and campaign: valid and invalid clicks.
    rows: BTreeMap<(i64, i64, i64), (i64, i64)>,
    late_ids: Vec<u64>,
    outcomes: BTreeMap<u16, OutcomesView>,
}

async fn conclusions(trial: &Trial) -> Conclusions {
    let rows = trial.database.ad_minutes().await.unwrap();
    let bootstrap = trial.services.kafka.bootstrap();
    let late = tokio::task::spawn_blocking(move || oracle::late_clicks(&bootstrap)).await.unwrap().unwrap();
    let mut late_ids: Vec<u64> = late.into_keys().collect();
    late_ids.sort_unstable();
    let shards = trial.view().await.unwrap().shards();
    Conclusions {
        rows: rows
            .into_iter()
            .map(|row| ((row.minute, row.ad_id, row.campaign_id), (row.clicks, row.invalid_clicks)))
            .collect(),
        late_ids,
        outcomes: shards.into_iter().map(|(shard, view)| (shard, view.outcomes)).collect(),
    }
}

/// No node ran for two hours, and the clicks went straight into the log: in disorder, late, beyond the horizon and
/// twice.
#[tokio::test]
async fn a_backlog_of_two_hours_is_counted_as_it_was_meant() {
    let mut trial = Trial::prepare(ClusterOptions::default()).await.unwrap();
    trial.make_topics().await.unwrap();
    let backlog = [
        "--http-percent=0",
        "--behind-s=7300",
        "--span-s=7200",
        "--clicks=200000",
        "--rate=0",
        "--beyond-horizon-percent=2",
    ];
    let summary = trial.load(&backlog).await.unwrap();
    let minutes: BTreeSet<u64> = summary.tally.expected().map(|line| line.minute).collect();
    assert!(
        minutes.len() >= 119 && summary.late_beyond > 1_000 && summary.late_counted > 1_000,
        "{minutes:?} {summary:?}"
    );
    trial.cluster.start().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
}

#[tokio::test]
async fn a_log_replayed_at_full_speed_counts_the_same_as_live() {
    let mut trial = Trial::start().await.unwrap();
    let summary = trial.load(&[]).await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
    let live = conclusions(&trial).await;
    assert!(live.late_ids.len() > 20 && !live.rows.is_empty(), "{live:?}");

    // Other cuts, other owners: one node reads everything as fast as it can.
    let again = ClusterOptions { nodes: 1, checkpoint_interval_ms: Some(700), ..trial.cluster.options.clone() };
    trial.forget_all_but_the_log(again).await.unwrap();
    trial.cluster.start().await.unwrap();
    trial.settle_and_check(&summary).await.unwrap();
    assert_eq!(conclusions(&trial).await, live);
}
