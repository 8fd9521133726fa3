//! Metrics of the budget lane.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};

use clicktally_proto::money::Micros;
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::{Gauge, Histogram, HistogramOpts};

pub(super) static STALENESS: LazyLock<Histogram> = LazyLock::new(|| {
    let options = HistogramOpts::new(
        "clicktally_budget_staleness_seconds",
        "Age of the replica's proof of being current, at each answer",
    )
    .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0]);
    registered(Histogram::with_opts(options).expect(FIXED))
});

static AT_RISK: LazyLock<Gauge> = LazyLock::new(|| {
    let help = "What may be spent unseen, over all campaigns asked about lately, in units of their currencies";
    registered(Gauge::new("clicktally_budget_dollars_at_risk", help).expect(FIXED))
});

static AT_RISK_MICROS: AtomicI64 = AtomicI64::new(0);

/// One campaign's amount changed from `before` to `after`.
pub(super) fn move_at_risk(before: Micros, after: Micros) {
    let change = after.saturating_sub(before);
    let sum = AT_RISK_MICROS.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
    // For display only: no decision reads this.
    AT_RISK.set(sum as f64 / 1e6);
}
