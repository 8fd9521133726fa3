//! What operators watch of billing. Registered once, in the process's one registry.

use prometheus::{Gauge, GaugeVec, IntCounter, Opts, Registry};

#[derive(Debug, Clone)]
pub struct BillingMetrics {
    pub(crate) divergence_ratio: GaugeVec,
    pub(crate) archive_backlog_seconds: Gauge,
    pub(crate) archived_records: IntCounter,
    pub(crate) archive_files: IntCounter,
}

impl BillingMetrics {
    /// # Errors
    /// When the registry holds metrics of these names already.
    pub fn register(registry: &Registry) -> Result<BillingMetrics, prometheus::Error> {
        let metrics = BillingMetrics {
            divergence_ratio: GaugeVec::new(
                Opts::new(
                    "clicktally_reconciliation_divergence_ratio",
                    "Clicks of the last reconciled day on which stream and batch differ, by cause, per click of the batch",
                ),
                &["cause"],
            )?,
            archive_backlog_seconds: Gauge::new(
                "clicktally_archive_backlog_seconds",
                "Age of the oldest record read from the log and not yet in the archive",
            )?,
            archived_records: IntCounter::new("clicktally_archive_records_total", "Records committed to the archive")?,
            archive_files: IntCounter::new("clicktally_archive_files_total", "Files committed to the archive")?,
        };
        registry.register(Box::new(metrics.divergence_ratio.clone()))?;
        registry.register(Box::new(metrics.archive_backlog_seconds.clone()))?;
        registry.register(Box::new(metrics.archived_records.clone()))?;
        registry.register(Box::new(metrics.archive_files.clone()))?;
        Ok(metrics)
    }
}
