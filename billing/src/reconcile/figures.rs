//! The last reconciliation of each day as metrics. A reconciliation runs in a command that ends, so each node shows it.
//!
//! Reads: `billing.reconciled_day` and `billing.reconciliation`. Writes: gauges. Promises: the gauges show the
//! [`DAYS_SHOWN`] newest days that were reconciled, as PostgreSQL had them at
//! `clicktally_reconciliation_read_timestamp_seconds`. While PostgreSQL is away, all of them keep their values. On
//! restart: nothing is shown before the first reading.

use std::collections::BTreeMap;

use clicktally_database::billing::{ReconciledDay, differing_clicks, newest_reconciled_days};
use clicktally_database::{Database, Day};
use clicktally_proto::event_time::UnixMillis;
use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts, Registry};

use super::explain::Cause;
use crate::error::BillingError;

/// How many days the label `day` can have. Together with the causes it bounds the number of series.
pub const DAYS_SHOWN: u32 = 7;

#[derive(Debug, Clone)]
pub struct ReconciliationFigures {
    divergence_ratio: GaugeVec,
    pages: IntGaugeVec,
    reconciled_at: GaugeVec,
    read_at: Gauge,
    /// What is shown.
    days: BTreeMap<Day, ReconciledDay>,
}

impl ReconciliationFigures {
    /// # Errors
    /// When the registry holds metrics of these names already.
    pub fn register(registry: &Registry) -> Result<ReconciliationFigures, prometheus::Error> {
        let figures = ReconciliationFigures {
            divergence_ratio: GaugeVec::new(
                Opts::new(
                    "clicktally_reconciliation_divergence_ratio",
                    "Clicks on which stream and batch differ per click of the batch, by cause, for the last 7 reconciled days",
                ),
                &["day", "cause"],
            )?,
            pages: IntGaugeVec::new(
                Opts::new(
                    "clicktally_reconciliation_pages",
                    "1 for each of the last 7 reconciled days on which more than 0.1 % differs without a cause",
                ),
                &["day"],
            )?,
            reconciled_at: GaugeVec::new(
                Opts::new(
                    "clicktally_reconciliation_timestamp_seconds",
                    "When each of the last 7 reconciled days was last reconciled, in Unix time",
                ),
                &["day"],
            )?,
            read_at: Gauge::new(
                "clicktally_reconciliation_read_timestamp_seconds",
                "When this node last read the reconciliations from PostgreSQL, in Unix time; 0 before the first reading",
            )?,
            days: BTreeMap::new(),
        };
        registry.register(Box::new(figures.divergence_ratio.clone()))?;
        registry.register(Box::new(figures.pages.clone()))?;
        registry.register(Box::new(figures.reconciled_at.clone()))?;
        registry.register(Box::new(figures.read_at.clone()))?;
        Ok(figures)
    }

    /// Shows what PostgreSQL has now. After an error the gauges keep their values, and the time of the last reading
    /// tells their age.
    ///
    /// # Errors
    /// `Database`.
    pub async fn refresh(&mut self, database: &Database, now_ms: UnixMillis) -> Result<(), BillingError> {
        let newest = newest_reconciled_days(database, DAYS_SHOWN).await?;
        let newest: BTreeMap<Day, ReconciledDay> = newest.into_iter().map(|day| (day.day, day)).collect();
        let gone: Vec<Day> = self.days.keys().copied().filter(|day| !newest.contains_key(day)).collect();
        for day in gone {
            self.remove(day);
        }
        for (day, reconciled) in newest {
            // A day can have many differences, so they are read again only after a new reconciliation.
            if self.days.get(&day) != Some(&reconciled) {
                let clicks = differing_clicks(database, day).await?;
                self.show(reconciled, &clicks);
            }
        }
        self.read_at.set(seconds(now_ms));
        Ok(())
    }

    fn show(&mut self, reconciled: ReconciledDay, clicks: &[(String, String, u64)]) {
        let label = reconciled.day.to_string();
        for cause in Cause::ALL {
            let of_cause = |(scope, name, _): &&(String, String, u64)| scope == cause.scope() && name == cause.as_str();
            let differing = clicks.iter().find(of_cause).map_or(0, |(_, _, clicks)| *clicks);
            // For a gauge only; `pages` is decided with integers.
            #[allow(clippy::cast_precision_loss)]
            let ratio = differing as f64 / reconciled.batch_clicks.max(1) as f64;
            self.divergence_ratio.with_label_values(&[label.as_str(), cause.as_str()]).set(ratio);
        }
        self.pages.with_label_values(&[label.as_str()]).set(i64::from(reconciled.pages));
        self.reconciled_at.with_label_values(&[label.as_str()]).set(seconds(reconciled.reconciled_at_ms));
        self.days.insert(reconciled.day, reconciled);
    }

    fn remove(&mut self, day: Day) {
        let label = day.to_string();
        // An error means that the series is not there.
        for cause in Cause::ALL {
            let _ = self.divergence_ratio.remove_label_values(&[label.as_str(), cause.as_str()]);
        }
        let _ = self.pages.remove_label_values(&[label.as_str()]);
        let _ = self.reconciled_at.remove_label_values(&[label.as_str()]);
        self.days.remove(&day);
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(at_ms: UnixMillis) -> f64 {
    at_ms as f64 / 1_000.0
}
