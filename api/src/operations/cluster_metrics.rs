//! Figures of the replicas as metrics, updated by each scrape.
//!
//! Every node has a replica of every group. Only the group's leader shows its figures, so that a sum over all nodes
//! counts each once.

use std::sync::LazyLock;

use clicktally_proto::checkpoint::OutcomeCounts;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_raft_store::metrics_registry::{FIXED, clamped, registered};
use prometheus::{GaugeVec, IntGaugeVec, Opts};

use crate::cluster::hot_keys::HotKeys;
use crate::state::ApiState;

/// The conservation equation in public: all other outcomes always add up to `read`.
static SHARD_CLICKS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let options = Opts::new(
        "clicktally_shard_clicks",
        "Clicks of a shard since its beginning, as committed, by what became of them",
    );
    registered(IntGaugeVec::new(options, &["shard", "outcome"]).expect(FIXED))
});

static HOT_KEY: LazyLock<GaugeVec> = LazyLock::new(|| {
    let options = Opts::new(
        "clicktally_hot_key_ratio",
        "Share of the newest minutes' clicks that the ad of this rank takes; /v1/cluster/hot_keys names it",
    );
    registered(GaugeVec::new(options, &["rank"]).expect(FIXED))
});

/// Sets every gauge of this file.
pub(crate) async fn refresh(state: &ApiState) {
    // Remove figures of groups that another node leads by now: they would stay at their last value here.
    SHARD_CLICKS.reset();
    HOT_KEY.reset();
    for group in state.groups.iter().filter(|group| group.is_leader()) {
        let shards: Vec<(ShardId, OutcomeCounts)> =
            group.read(|state| state.shards().iter().map(|(shard, entry)| (*shard, entry.outcomes)).collect());
        shards.iter().for_each(|(shard, outcomes)| show_outcomes(*shard, outcomes));
    }
    let leads_first = state.groups.first().is_some_and(|group| group.id() == GroupId(0) && group.is_leader());
    if leads_first {
        for (rank, key) in (1_u32..).zip(&HotKeys::now(state).await.keys) {
            HOT_KEY.with_label_values(&[&rank.to_string()]).set(key.share);
        }
    }
}

fn show_outcomes(shard: ShardId, outcomes: &OutcomeCounts) {
    let label = shard.0.to_string();
    for (outcome, clicks) in outcomes.named() {
        SHARD_CLICKS.with_label_values(&[label.as_str(), outcome]).set(clamped(clicks));
    }
}
