//! How a metric gets into the process's one Prometheus registry. Here because this is the lowest crate that has metrics.

use prometheus::core::Collector;

/// Why the constructors of metrics may be unwrapped.
pub const FIXED: &str = "the name and labels of a metric are constants";

/// Shows the metric on `/metrics`. One that cannot be registered still counts; it is only not shown.
pub fn registered<M: Collector + Clone + 'static>(metric: M) -> M {
    if let Err(error) = prometheus::default_registry().register(Box::new(metric.clone())) {
        tracing::error!(%error, "a metric is not shown");
    }
    metric
}

/// What an integer gauge can hold of a count.
pub fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
