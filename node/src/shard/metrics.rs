//! The metrics of this process's shards.

use std::sync::LazyLock;
use std::time::Duration;

use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_raft_store::metrics_registry::{FIXED, clamped, registered};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::commit::Committed;
use super::shard_state::ShardState;

pub(super) static METRICS: LazyLock<ShardMetrics> = LazyLock::new(ShardMetrics::register);

pub(super) struct ShardMetrics {
    events: IntCounterVec,
    partials: IntCounter,
    checkpoint_bytes: IntCounterVec,
    freshness_seconds: Histogram,
    seen_ids: IntGaugeVec,
    seen_id_bytes: IntGaugeVec,
    lag_records: IntGaugeVec,
    watermark_lag_seconds: IntGaugeVec,
    checkpoint_seconds: Histogram,
    move_pause_seconds: Histogram,
    moves: IntCounterVec,
    pub(super) checkpoint_failures: IntCounter,
    pub(super) shards_owned: IntGauge,
}

/// Why a shard came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MoveCause {
    /// The former owner handed it over by plan.
    Planned,
    /// The former owner fell silent.
    Failover,
}

impl MoveCause {
    pub(super) fn label(self) -> &'static str {
        match self {
            MoveCause::Planned => "planned",
            MoveCause::Failover => "failover",
        }
    }
}

impl ShardMetrics {
    fn register() -> ShardMetrics {
        let by_shard = |name, help| registered(IntGaugeVec::new(Opts::new(name, help), &["shard"]).expect(FIXED));
        let gauge = |name, help| registered(IntGauge::new(name, help).expect(FIXED));
        let buckets = vec![0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        let checkpoint =
            HistogramOpts::new("clicktally_checkpoint_seconds", "from the cut of a checkpoint to its commit")
                .buckets(buckets.clone());
        let pause = HistogramOpts::new(
            "clicktally_shard_move_pause_seconds",
            "from the last commit of a shard's former owner, as seen here, to the first one of this node",
        );
        let freshness = HistogramOpts::new(
            "clicktally_freshness_seconds",
            "from the arrival in the log of a checkpoint's oldest record to its commit, when its counts can be asked for",
        );
        let moves = Opts::new("clicktally_shard_moves_total", "shards that came here from another owner, by cause");
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
            checkpoint_bytes: registered(
                IntCounterVec::new(
                    Opts::new(
                        "clicktally_checkpoint_bytes_total",
                        "packed bytes of what checkpoints brought: partial counts (cells), ids (seen)",
                    ),
                    &["part"],
                )
                .expect(FIXED),
            ),
            freshness_seconds: registered(Histogram::with_opts(freshness.buckets(buckets.clone())).expect(FIXED)),
            seen_ids: by_shard("clicktally_seen_ids", "ids a shard remembers, so that none is counted twice"),
            seen_id_bytes: by_shard("clicktally_seen_id_bytes", "memory those take, without the allocator's share"),
            lag_records: by_shard(
                "clicktally_shard_lag_records",
                "records of the log not read yet, at the last checkpoint",
            ),
            watermark_lag_seconds: by_shard("clicktally_watermark_lag_seconds", "wall time less the shard's watermark"),
            checkpoint_seconds: registered(Histogram::with_opts(checkpoint).expect(FIXED)),
            move_pause_seconds: registered(Histogram::with_opts(pause.buckets(buckets)).expect(FIXED)),
            moves: registered(IntCounterVec::new(moves, &["cause"]).expect(FIXED)),
            checkpoint_failures: registered(
                IntCounter::new("clicktally_checkpoint_failures_total", "checkpoint attempts without a commit")
                    .expect(FIXED),
            ),
            shards_owned: gauge("clicktally_shards_owned", "shards counted by this process"),
        }
    }

    pub(super) fn lag(&self, shard: ShardId, records: u64) {
        self.lag_records.with_label_values(&[&shard.0.to_string()]).set(clamped(records));
    }

    /// `took`: from the cut to the commit. `now_ms`: wall time of the commit.
    pub(super) fn committed(&self, state: &ShardState, committed: &Committed, took: Duration, now_ms: UnixMillis) {
        let Committed { outcomes, partials, cell_bytes, seen_bytes, oldest_arrival_ms } = committed;
        let since = |then_ms: UnixMillis| Duration::from_millis(now_ms.saturating_sub(then_ms));
        self.partials.inc_by(*partials);
        for (part, bytes) in [("cells", cell_bytes), ("seen", seen_bytes)] {
            self.checkpoint_bytes.with_label_values(&[part]).inc_by(*bytes as u64);
        }
        self.checkpoint_seconds.observe(took.as_secs_f64());
        if let Some(arrival_ms) = oldest_arrival_ms {
            self.freshness_seconds.observe(since(*arrival_ms).as_secs_f64());
        }
        let label = state.shard().0.to_string();
        let show = |gauge: &IntGaugeVec, value: u64| gauge.with_label_values(&[label.as_str()]).set(clamped(value));
        show(&self.watermark_lag_seconds, since(state.watermark_ms()).as_secs());
        show(&self.seen_ids, state.seen().len());
        show(&self.seen_id_bytes, state.seen().bytes() as u64);
        let [_read, became @ ..] = outcomes.named();
        for (outcome, clicks) in became {
            self.events.with_label_values(&[outcome]).inc_by(clicks);
        }
    }

    /// Records that a shard from another node has its first commit here.
    pub(super) fn moved(&self, cause: MoveCause, pause: Duration) {
        self.move_pause_seconds.observe(pause.as_secs_f64());
        self.moves.with_label_values(&[cause.label()]).inc();
    }

    /// Removes the gauges of a shard that has moved away, so that its last lag does not remain.
    pub(super) fn forget(&self, shard: ShardId) {
        let label = shard.0.to_string();
        for gauge in [&self.lag_records, &self.watermark_lag_seconds, &self.seen_ids, &self.seen_id_bytes] {
            // A gauge is absent if the shard made no checkpoint; there is nothing to remove.
            let _ = gauge.remove_label_values(&[&label]);
        }
    }
}
