//! What a seed decides before the run: sizes, rules, and how much goes wrong.

use std::time::Duration;

use clicktally_proto::event_time::EventTimeRules;

use crate::simulation::random::{Seed, Stream};

/// Wall time of the log at the start of every run.
pub(super) const START_MS: u64 = 1_800_000_000_000;
/// A node that was silent for this long is dead to its peers.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How long a question to a group's leader may take.
pub(super) const LEADER_DEADLINE_MS: u64 = 3_000;
/// How long an owner may take for its last commit before the shard moves without it (as in `shard_life`).
pub(super) const LAST_COMMIT_DEADLINE_MS: u64 = 2_000;
/// How long everything may take to heal after the last fault.
pub(super) const HEAL_MS: u64 = 30_000;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) nodes: u64,
    pub(super) rules: EventTimeRules,
    pub(super) checkpoint_interval_ms: u64,
    pub(super) drain_every_ms: u64,
    pub(super) traffic_every_ms: u64,
    /// Faults are drawn until then; traffic ends with them.
    pub(super) faulty_ms: u64,
    /// Mean time between two faults; `None` for a run without any.
    pub(super) fault_every_ms: Option<u64>,
    /// One in so many steps of the checkpoint path crashes its node; 0 for none.
    pub(super) step_crash_one_in: u64,
    /// One in so many messages is lost, and one in so many writes to the log has no known outcome; 0 for none.
    pub(super) loss_one_in: u64,
    pub(super) latency_ms_max: u64,
    /// How far readers lag behind the end of the log.
    pub(super) fetch_lag_ms: u64,
    /// A replica makes a snapshot at every multiple of this index.
    pub(super) snapshot_every: u64,
    /// Entries that a leader keeps for lagging replicas; a replica that needs older ones gets a snapshot.
    pub(super) log_kept: u64,
    pub(super) cost_per_click_micros: i64,
    pub(super) budget_micros: i64,
    pub(super) tolerance_micros: i64,
}

impl Plan {
    pub(super) fn draw(seed: Seed) -> Plan {
        let mut random = seed.stream("plan");
        let random = &mut random;
        let is_quiet = random.permille(50);
        Plan {
            nodes: if random.permille(200) { 4 } else { 3 },
            rules: EventTimeRules {
                out_of_orderness_ms: random.between(200, 5_000),
                allowed_lateness_ms: random.between(0, 40_000),
                retain_final_ms: random.between(0, 20_000),
                max_ahead_ms: random.between(5_000, 60_000),
            },
            checkpoint_interval_ms: random.between(500, 4_000),
            drain_every_ms: random.between(50, 400),
            traffic_every_ms: random.between(150, 700),
            faulty_ms: random.between(60_000, 150_000),
            fault_every_ms: if is_quiet { None } else { Some(random.between(600, 12_000)) },
            step_crash_one_in: one_in(random, is_quiet, 300, 3_000),
            loss_one_in: one_in(random, is_quiet, 8, 200),
            latency_ms_max: if random.permille(700) { 30 } else { 400 },
            fetch_lag_ms: if random.permille(400) { random.below(1_500) } else { 0 },
            snapshot_every: random.between(60, 400),
            log_kept: random.between(20, 300),
            cost_per_click_micros: i64::try_from(random.between(1, 1_000)).unwrap_or(1),
            budget_micros: i64::try_from(random.between(1, 2_000_000)).unwrap_or(1),
            tolerance_micros: i64::try_from(random.below(20_000)).unwrap_or(0),
        }
    }
}

/// 0 (never) in quiet runs and in some others.
fn one_in(random: &mut Stream, is_quiet: bool, low: u64, high: u64) -> u64 {
    if is_quiet || random.permille(300) { 0 } else { random.between(low, high) }
}
