//! Registers metrics in the Prometheus registry of the process. This module is here because this is the lowest crate
//! that has metrics.

use prometheus::core::Collector;

/// The reason why the constructors of metrics may be unwrapped.
pub const FIXED: &str = "the name and labels of a metric are constants";

/// Shows the metric on `/metrics`. A metric that cannot be registered still counts, but is not shown.
pub fn registered<M: Collector + Clone + 'static>(metric: M) -> M {
    if let Err(error) = prometheus::default_registry().register(Box::new(metric.clone())) {
        tracing::error!(%error, "cannot register a metric; it is not shown on /metrics");
    }
    metric
}

/// Clamps a count to the range of an integer gauge.
pub fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
