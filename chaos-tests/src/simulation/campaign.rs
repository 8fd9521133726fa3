//! Runs many seeds side by side, until one fails or all are done. One in a hundred runs twice, and both runs must be
//! equal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clicktally_proto::clock::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use super::edition::{Edition, Story};
use super::random::Seed;
use super::report::{Finding, SeedReport};
use super::tier::Tier;

/// One seed in this many runs twice.
const TWICE_ONE_IN: u64 = 100;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Campaign {
    pub tier: Tier,
    pub edition: Edition,
    /// The program `sim`, as [`Tier::run_story`] wants it.
    pub simulator: PathBuf,
    pub first_seed: u64,
    pub seeds: u64,
    /// No seed begins after this time.
    pub time_max: Option<Duration>,
    pub threads: usize,
}

/// The totals of a campaign, and its first failure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CampaignReport {
    pub seeds: u64,
    pub seeds_run_twice: u64,
    pub simulated_ms: u64,
    pub clicks: u64,
    pub faults: BTreeMap<String, u64>,
    pub took_ms: u64,
    /// The lowest failed seed among those that ran.
    pub failed: Option<SeedReport>,
}

impl CampaignReport {
    fn take(&mut self, report: SeedReport, was_run_twice: bool) {
        self.seeds += 1;
        self.seeds_run_twice += u64::from(was_run_twice);
        self.simulated_ms += report.simulated_ms;
        self.clicks += report.clicks;
        for (kind, times) in &report.faults {
            *self.faults.entry(kind.clone()).or_default() += times;
        }
        let is_first = self.failed.as_ref().is_none_or(|failed| report.seed < failed.seed);
        if report.violation.is_some() && is_first {
            self.failed = Some(report);
        }
    }

    pub fn summary(&self) -> String {
        let seconds = (self.took_ms as f64 / 1_000.0).max(0.001);
        let faults: u64 = self.faults.values().sum();
        format!(
            "{} seeds ({} twice) in {seconds:.1} s, {:.1} seeds/s: {:.1} simulated hours, {} clicks, {faults} faults; {}",
            self.seeds,
            self.seeds_run_twice,
            self.seeds as f64 / seconds,
            self.simulated_ms as f64 / 3_600_000.0,
            self.clicks,
            if self.failed.is_some() { "FAILED" } else { "no violation" },
        )
    }
}

impl Campaign {
    /// Reports to `progress` every few seconds.
    pub fn run(&self, progress: &(dyn Fn(&CampaignReport) + Sync)) -> CampaignReport {
        let clock = SystemClock;
        let began_at = clock.monotonic();
        let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let report = Mutex::new((CampaignReport::default(), began_at));
        let work = || {
            while !is_over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let took = clock.monotonic().saturating_sub(began_at);
                if number >= self.seeds || self.time_max.is_some_and(|max| took >= max) {
                    return;
                }
                let is_twice = number.is_multiple_of(TWICE_ONE_IN);
                let seed_report = self.run_seed(self.first_seed + number, is_twice);
                if seed_report.violation.is_some() {
                    is_over.store(true, Ordering::Relaxed);
                }
                let mut locked = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                locked.0.take(seed_report, is_twice);
                let now = clock.monotonic();
                locked.0.took_ms = u64::try_from(now.saturating_sub(began_at).as_millis()).unwrap_or(u64::MAX);
                if now.saturating_sub(locked.1) >= PROGRESS_EVERY {
                    locked.1 = now;
                    progress(&locked.0);
                }
            }
        };
        std::thread::scope(|scope| {
            (0..self.threads.max(1)).for_each(|_| drop(scope.spawn(work)));
        });
        report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn run_seed(&self, seed: u64, is_twice: bool) -> SeedReport {
        let story = Story { seed: Seed(seed), edition: self.edition };
        let first = self.tier.run_story(story, &self.simulator);
        if !is_twice || first.violation.is_some() {
            return first;
        }
        let second = self.tier.run_story(story, &self.simulator);
        if first == second {
            return first;
        }
        let message = format!(
            "two runs differ: {} lines with hash {:x}, {} lines with hash {:x}",
            first.trace_lines, first.trace_hash, second.trace_lines, second.trace_hash
        );
        let violation = Finding { check: "determinism".into(), message, trace_tail: Vec::new() };
        SeedReport { violation: Some(violation), ..first }
    }
}

/// A failure for people: the broken invariant, what led to it, and the command that replays it.
pub fn explain(report: &SeedReport, tier: Tier) -> String {
    let Some(violation) = &report.violation else { return format!("seed {}: no violation", report.seed) };
    format!(
        "{}\n\nseed {}{}: {}: {}\nreplay: make sim SEEDS=1 SEED={} TIER={tier} EDITION={}",
        violation.trace_tail.join("\n"),
        report.seed,
        if report.shape.is_empty() { String::new() } else { format!(" ({})", report.shape) },
        violation.check,
        violation.message,
        report.seed,
        report.edition
    )
}
