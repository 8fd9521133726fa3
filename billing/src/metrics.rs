//! What operators watch of the archive. Registered once, in the process's one registry. The metrics of reconciliation
//! are in `reconcile::ReconciliationFigures`.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

#[derive(Debug, Clone)]
pub struct BillingMetrics {
    pub(crate) archive_backlog_seconds: Gauge,
    pub(crate) archive_lag_offsets: IntGauge,
    pub(crate) archived_records: IntCounter,
    pub(crate) archive_files: IntCounter,
}

impl BillingMetrics {
    /// # Errors
    /// When the registry holds metrics of these names already.
    pub fn register(registry: &Registry) -> Result<BillingMetrics, prometheus::Error> {
        let metrics = BillingMetrics {
            archive_backlog_seconds: Gauge::new(
                "clicktally_archive_backlog_seconds",
                "Age of the oldest record read from the log and not yet in the archive",
            )?,
            archive_lag_offsets: IntGauge::new(
                "clicktally_archive_lag_offsets",
                "Offsets of the raw log that are readable and not in the archive, over all shards",
            )?,
            archived_records: IntCounter::new("clicktally_archive_records_total", "Records committed to the archive")?,
            archive_files: IntCounter::new("clicktally_archive_files_total", "Files committed to the archive")?,
        };
        registry.register(Box::new(metrics.archive_backlog_seconds.clone()))?;
        registry.register(Box::new(metrics.archive_lag_offsets.clone()))?;
        registry.register(Box::new(metrics.archived_records.clone()))?;
        registry.register(Box::new(metrics.archive_files.clone()))?;
        Ok(metrics)
    }
}
