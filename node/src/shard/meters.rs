//! Measures the load and progress of each shard of this process. Heartbeats carry the results, placement decides by
//! them, and operators read them.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_api::ports::{OwnShard, OwnShards};
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_state::liveness::ShardLoad;
use parking_lot::Mutex;

/// The period over which clicks per second are smoothed. It spans many checkpoints, yet shows a viral ad soon.
const SMOOTHING: Duration = Duration::from_secs(5);
/// A shorter measurement is not representative. Until then the former owner's measurement stays in force.
const MEASURED_AFTER: Duration = Duration::from_secs(3);
/// The minimum time between two measurements. A division by a shorter time is meaningless.
const MEASURE_EVERY_MIN: Duration = Duration::from_millis(50);

/// The meters of all shards of this process. Times are monotonic.
#[derive(Debug, Default)]
pub struct ShardMeters(Mutex<BTreeMap<ShardId, Meter>>);

impl ShardMeters {
    pub(super) fn begin(&self, shard: ShardId, now: Duration) {
        self.0.lock().insert(shard, Meter::new(now));
    }

    pub(super) fn end(&self, shard: ShardId) {
        self.0.lock().remove(&shard);
    }

    pub(super) fn committed(&self, shard: ShardId, clicks: u64, records: u64) {
        if let Some(meter) = self.0.lock().get_mut(&shard) {
            meter.clicks += clicks;
            meter.records += records;
        }
    }

    pub(super) fn lag(&self, shard: ShardId, records: u64) {
        if let Some(meter) = self.0.lock().get_mut(&shard) {
            meter.lag_records = Some(records);
        }
    }

    pub(super) fn moved(&self, shard: ShardId, pause: Duration) {
        if let Some(meter) = self.0.lock().get_mut(&shard) {
            meter.move_pause = Some(pause);
        }
    }

    /// Measures every shard that has been here for long enough. Only the heartbeat calls this.
    pub fn measure(&self, now: Duration) -> Vec<(ShardId, ShardLoad)> {
        self.0.lock().iter_mut().filter_map(|(&shard, meter)| Some((shard, meter.measure(now)?))).collect()
    }
}

impl OwnShards for ShardMeters {
    fn shards(&self) -> BTreeMap<ShardId, OwnShard> {
        let meters = self.0.lock();
        let seen = |meter: &Meter| OwnShard { move_pause: meter.move_pause };
        meters.iter().map(|(&shard, meter)| (shard, seen(meter))).collect()
    }
}

#[derive(Debug)]
struct Meter {
    since: Duration,
    measured_at: Duration,
    /// Clicks since `measured_at`.
    clicks: u64,
    /// Smoothed and in thousandths, so that a slow shard does not round to zero.
    clicks_per_1000_s: u64,
    /// Offsets passed, and clicks in them, over the life of this meter. Their ratio is the number of clicks in a
    /// record.
    records: u64,
    clicks_ever: u64,
    lag_records: Option<u64>,
    move_pause: Option<Duration>,
}

impl Meter {
    fn new(now: Duration) -> Meter {
        Meter {
            since: now,
            measured_at: now,
            clicks: 0,
            clicks_per_1000_s: 0,
            records: 0,
            clicks_ever: 0,
            lag_records: None,
            move_pause: None,
        }
    }

    fn measure(&mut self, now: Duration) -> Option<ShardLoad> {
        let passed = now.saturating_sub(self.measured_at);
        if passed >= MEASURE_EVERY_MIN {
            let (passed_us, smoothing_us) = (micros(passed), micros(SMOOTHING.min(now.saturating_sub(self.since))));
            let rate = u128::from(self.clicks) * 1_000_000_000 / passed_us;
            // The first seconds use the plain mean, the later ones an exponential mean.
            let weight = passed_us.min(smoothing_us);
            let smoothed =
                (u128::from(self.clicks_per_1000_s) * (smoothing_us - weight) + rate * weight) / smoothing_us;
            self.clicks_per_1000_s = u64::try_from(smoothed).unwrap_or(u64::MAX);
            self.clicks_ever += self.clicks;
            self.clicks = 0;
            self.measured_at = now;
        }
        let lag_clicks = match self.records {
            0 => self.lag_records.unwrap_or(0),
            records => {
                let lag =
                    u128::from(self.lag_records.unwrap_or(0)) * u128::from(self.clicks_ever) / u128::from(records);
                u64::try_from(lag).unwrap_or(u64::MAX)
            }
        };
        let load = ShardLoad { clicks_per_s: self.clicks_per_1000_s / 1_000, lag_clicks };
        (now.saturating_sub(self.since) >= MEASURED_AFTER).then_some(load)
    }
}

/// Never returns 0.
fn micros(duration: Duration) -> u128 {
    duration.as_micros().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(4);

    fn measured(meters: &ShardMeters, millis: u64) -> Option<ShardLoad> {
        meters.measure(Duration::from_millis(millis)).first().map(|(_, load)| *load)
    }

    #[test]
    fn a_steady_rate_is_measured_as_such_whatever_the_checkpoints_are() {
        let meters = ShardMeters::default();
        meters.begin(SHARD, Duration::ZERO);
        for tick in 1..=80_u64 {
            // Heartbeats four times a second, and every second a checkpoint of a thousand clicks in ten records.
            if tick % 4 == 0 {
                meters.committed(SHARD, 1_000, 10);
            }
            let load = measured(&meters, tick * 250);
            assert_eq!(load.is_some(), tick >= 12, "tick {tick}");
        }
        let load = measured(&meters, 20_001).unwrap();
        assert!((850..1_150).contains(&load.clicks_per_s), "{load:?}");
        meters.lag(SHARD, 50);
        assert_eq!(measured(&meters, 20_002).unwrap().lag_clicks, 5_000);
    }

    #[test]
    fn a_burst_shows_within_seconds_and_a_shard_that_went_leaves_nothing() {
        let meters = ShardMeters::default();
        meters.begin(SHARD, Duration::ZERO);
        measured(&meters, 10_000);
        for second in 11..=16 {
            meters.committed(SHARD, 10_000, 100);
            measured(&meters, second * 1_000);
        }
        assert!(measured(&meters, 16_000).unwrap().clicks_per_s > 6_000);
        meters.end(SHARD);
        assert_eq!(measured(&meters, 17_000), None);
        assert!(meters.shards().is_empty());
    }
}
