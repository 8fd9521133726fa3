//! The metrics of this node as a member.

use std::sync::LazyLock;

use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::{IntCounterVec, IntGauge, Opts};

pub(super) static METRICS: LazyLock<ClusterMetrics> = LazyLock::new(ClusterMetrics::register);

pub(super) struct ClusterMetrics {
    pub(super) leader_changes: IntCounterVec,
    pub(super) groups_led: IntGauge,
    pub(super) is_draining: IntGauge,
    pub(super) load_clicks_per_second: IntGauge,
}

impl ClusterMetrics {
    fn register() -> ClusterMetrics {
        let gauge = |name, help| registered(IntGauge::new(name, help).expect(FIXED));
        let changes =
            Opts::new("clicktally_raft_leader_changes_total", "leaders of each group that this node has seen begin");
        ClusterMetrics {
            leader_changes: registered(IntCounterVec::new(changes, &["group"]).expect(FIXED)),
            groups_led: gauge("clicktally_raft_groups_led", "groups that this node leads"),
            is_draining: gauge("clicktally_node_draining", "1 while this node is to be emptied"),
            load_clicks_per_second: gauge(
                "clicktally_node_load_clicks_per_second",
                "clicks read a second by this node's shards, smoothed",
            ),
        }
    }
}
