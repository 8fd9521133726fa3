//! How long budget checks take.

use std::sync::LazyLock;

use clicktally_raft_store::metrics_registry::{FIXED, registered};
use prometheus::{Histogram, HistogramOpts};

pub static BUDGET_CHECK: LazyLock<Histogram> = LazyLock::new(|| {
    let options =
        HistogramOpts::new("clicktally_budget_check_seconds", "Time from request to answer of a budget check")
            .buckets(vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1]);
    registered(Histogram::with_opts(options).expect(FIXED))
});
