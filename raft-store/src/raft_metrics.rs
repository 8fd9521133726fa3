//! The metrics of the groups of this process, in its one Prometheus registry.

use std::sync::LazyLock;

use clicktally_proto::identity::shard_key::GroupId;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::metrics_registry::{FIXED, clamped, registered};
use clicktally_state::limits::HeldState;

pub(crate) static METRICS: LazyLock<RaftMetrics> = LazyLock::new(RaftMetrics::register);

pub(crate) struct RaftMetrics {
    /// From the request for the state's lock to the end of the change, so it includes the wait for readers.
    pub(crate) apply_seconds: Histogram,
    pub(crate) snapshot_build_seconds: Histogram,
    snapshot_bytes: IntGaugeVec,
    log_bytes: IntGauge,
    state_cells: IntGaugeVec,
    state_bytes: IntGaugeVec,
    broken_invariants: IntCounterVec,
}

impl RaftMetrics {
    fn register() -> RaftMetrics {
        let by_group = |name, help| registered(IntGaugeVec::new(Opts::new(name, help), &["group"]).expect(FIXED));
        let histogram = |name, help, buckets: &[f64]| {
            registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(FIXED))
        };
        RaftMetrics {
            apply_seconds: histogram(
                "clicktally_raft_apply_seconds",
                "time to apply one log entry to a group's state, including the wait for the state's lock",
                &[0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5],
            ),
            snapshot_build_seconds: histogram(
                "clicktally_raft_snapshot_build_seconds",
                "time to build a snapshot of a group's state and make it durable",
                &[0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0],
            ),
            snapshot_bytes: by_group(
                "clicktally_raft_snapshot_bytes",
                "size on disk of the newest snapshot that this node built",
            ),
            log_bytes: registered(
                IntGauge::new("clicktally_raft_log_bytes", "size on disk of the Raft log of all groups").expect(FIXED),
            ),
            state_cells: by_group("clicktally_state_cells", "number of cells in a group's state"),
            state_bytes: by_group("clicktally_state_bytes", "size of a group's state as counted against its budget"),
            broken_invariants: registered(
                IntCounterVec::new(
                    Opts::new(
                        "clicktally_state_broken_invariants_total",
                        "how often the audit found a group's state to break a rule; anything above 0 is a defect",
                    ),
                    &["group", "rule"],
                )
                .expect(FIXED),
            ),
        }
    }

    pub(crate) fn snapshot_built(&self, group: GroupId, bytes: u64) {
        self.snapshot_bytes.with_label_values(&[&group.0.to_string()]).set(clamped(bytes));
    }

    pub(crate) fn state_held(&self, group: GroupId, held: HeldState) {
        let label = group.0.to_string();
        self.state_cells.with_label_values(&[&label]).set(clamped(held.cells.cells));
        self.state_bytes.with_label_values(&[&label]).set(clamped(held.bytes()));
    }

    /// Returns how often the audit has found this rule broken.
    pub(crate) fn invariant_broken(&self, group: GroupId, rule: &str) -> u64 {
        let found = self.broken_invariants.with_label_values(&[&group.0.to_string(), rule]);
        found.inc();
        found.get()
    }

    pub(crate) fn log_used(&self, bytes: u64) {
        self.log_bytes.set(clamped(bytes));
    }
}
