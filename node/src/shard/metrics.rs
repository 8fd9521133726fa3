//! What an operator sees of the shards of this process.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::shard_key::ShardId;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::commit::Committed;

pub(super) static METRICS: LazyLock<ShardMetrics> = LazyLock::new(ShardMetrics::register);

pub(super) struct ShardMetrics {
    events: IntCounterVec,
    partials: IntCounter,
    lag_records: IntGaugeVec,
    watermark_lag_seconds: IntGaugeVec,
    checkpoint_seconds: Histogram,
    pub(super) checkpoint_failures: IntCounter,
    pub(super) shards_owned: IntGauge,
    pub(super) shards_halted: IntGauge,
}

/// Records not read yet of every shard that this process owns, as of each one's last checkpoint.
pub fn shard_lags() -> BTreeMap<ShardId, u64> {
    METRICS.lags()
}

const FIXED: &str = "the name and labels of a metric are constants";

impl ShardMetrics {
    fn register() -> ShardMetrics {
        let by_shard = |name, help| registered(IntGaugeVec::new(Opts::new(name, help), &["shard"]).expect(FIXED));
        let gauge = |name, help| registered(IntGauge::new(name, help).expect(FIXED));
        let buckets = vec![0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        let checkpoint =
            HistogramOpts::new("clicktally_checkpoint_seconds", "from the cut of a checkpoint to its commit")
                .buckets(buckets);
        let events = Opts::new("clicktally_shard_events_total", "clicks read, by what became of them");
        ShardMetrics {
            events: registered(IntCounterVec::new(events, &["outcome"]).expect(FIXED)),
            partials: registered(
                IntCounter::new(
                    "clicktally_partials_total",
                    "partial counts (shard, ad, minute) that checkpoints brought to stage two",
                )
                .expect(FIXED),
            ),
            lag_records: by_shard(
                "clicktally_shard_lag_records",
                "records of the log not read yet, at the last checkpoint",
            ),
            watermark_lag_seconds: by_shard("clicktally_watermark_lag_seconds", "wall time less the shard's watermark"),
            checkpoint_seconds: registered(Histogram::with_opts(checkpoint).expect(FIXED)),
            checkpoint_failures: registered(
                IntCounter::new("clicktally_checkpoint_failures_total", "checkpoint attempts without a commit")
                    .expect(FIXED),
            ),
            shards_owned: gauge("clicktally_shards_owned", "shards counted by this process"),
            shards_halted: gauge("clicktally_shards_halted", "shards stopped by an error that needs a person"),
        }
    }

    pub(super) fn lag(&self, shard: ShardId, records: u64) {
        self.lag_records.with_label_values(&[&shard.0.to_string()]).set(clamped(records));
    }

    /// The lag of every shard that this process owns, as of its last checkpoint.
    fn lags(&self) -> BTreeMap<ShardId, u64> {
        let families = self.lag_records.collect();
        let gauges = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let lags = gauges.filter_map(|gauge| {
            let shard = gauge.get_label().first()?.value().parse().ok()?;
            // What was an integer below 2^53 comes back as one.
            Some((ShardId(shard), gauge.get_gauge().get_value() as u64))
        });
        lags.collect()
    }

    pub(super) fn committed(&self, shard: ShardId, committed: &Committed, took: Duration, behind_ms: UnixMillis) {
        let Committed { outcomes, partials } = committed;
        self.partials.inc_by(*partials);
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.watermark_lag_seconds.with_label_values(&[&shard.0.to_string()]).set(clamped(behind_ms / 1_000));
        let by_outcome = [
            ("counted", outcomes.counted),
            ("duplicate", outcomes.duplicate),
            ("late", outcomes.late),
            ("invalid", outcomes.invalid),
            ("quarantined", outcomes.quarantined),
            ("misrouted", outcomes.misrouted),
        ];
        for (outcome, clicks) in by_outcome {
            self.events.with_label_values(&[outcome]).inc_by(clicks);
        }
    }

    /// A shard that has gone elsewhere must not leave its last lag standing here.
    pub(super) fn forget(&self, shard: ShardId) {
        let label = shard.0.to_string();
        // Absent where no checkpoint was made: nothing to remove then.
        let _ = self.lag_records.remove_label_values(&[&label]);
        let _ = self.watermark_lag_seconds.remove_label_values(&[&label]);
    }
}

fn registered<M: Collector + Clone + 'static>(metric: M) -> M {
    if let Err(error) = prometheus::default_registry().register(Box::new(metric.clone())) {
        tracing::error!(%error, "a metric will not be shown");
    }
    metric
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
