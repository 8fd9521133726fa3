//! Plans what to send: a seeded sequence of clicks, each with the fate it must have.
//!
//! Fates must be certain, whatever the timing of the run. A shard's watermark is at most `max(newest event time before
//! the click in its partition, time of append) − out-of-orderness`.
//!
//! * A click is certainly *counted* if its window's end plus the lateness is after that watermark. A delay of a quarter
//!   of the lateness leaves room for this.
//! * A click is certainly *beyond the horizon* if an earlier record of the same partition already moves the watermark
//!   past its finality.

use std::borrow::Cow;
use std::collections::VecDeque;

use clicktally_proto::identity::ids::ClickId;
use clicktally_proto::identity::shard_key::{Partitioner, salt};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ad_mix::AdMix;
use super::options::LoadOptions;
use super::steady_ads::SteadyAds;

/// The authenticated source of clicks that go straight into the log.
pub const LOG_SOURCE: &str = "clicktally-load";

/// How many earlier clicks a duplicate may repeat. This bounds the distance between the two.
const REPEATABLE_CLICKS: usize = 20_000;
/// A repeat must meet its original within the lateness; older clicks are not repeated.
const REPEAT_AGE_MAX_MS: u64 = 5_000;
/// The minimum distance of a click from the horizon, for a click beyond it.
const HORIZON_MARGIN_MS: u64 = 5_000;
const MINUTE_MS: u64 = 60_000;

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/138.0.0.0 Mobile",
];
const ROBOT_AGENT: &str = "Mozilla/5.0 (compatible; ExampleBot/2.1; +http://example.org/bot)";
const COUNTRIES: [&str; 6] = ["US", "DE", "PT", "BR", "IN", "JP"];
const DEVICES: [&str; 3] = ["desktop", "mobile", "tablet"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorKind {
    Http,
    Log,
}

/// What the system must do with a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Counted,
    /// Counted by a correction, or on time if the stream happens to be slow. The click counts either way.
    LateCounted,
    BeyondHorizon,
    Duplicate,
    Invalid,
    Malformed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedClick {
    pub door: DoorKind,
    pub fate: Fate,
    pub event_id: String,
    pub ad_id: u64,
    pub campaign_id: u64,
    pub event_time_ms: u64,
    pub user_agent: Cow<'static, str>,
    pub country: Cow<'static, str>,
    pub device_type: Cow<'static, str>,
    pub ip_address: String,
    /// Empty if the click names no user.
    pub user_id: String,
    /// 0 if the click names no cost.
    pub cost_per_click_micros: i64,
}

impl PlannedClick {
    /// The identity of a click that goes through the log door.
    pub fn log_click_id(&self) -> ClickId {
        ClickId::foreign(LOG_SOURCE, self.campaign_id, &self.event_id)
    }
}

/// Draws clicks. The caller passes the wall time in.
#[derive(Debug)]
pub struct Plan {
    options: LoadOptions,
    run_id: String,
    random: ChaCha8Rng,
    ads: AdMix,
    steady: SteadyAds,
    partitioner: Partitioner,
    serial: u64,
    repeatable: VecDeque<PlannedClick>,
    /// Newest event time that the log door has planned for each partition, as of the plan's time: a click dated ahead
    /// makes nothing late before its time has come.
    newest_ms: Vec<u64>,
    now_ms: u64,
}

impl Plan {
    pub fn new(options: &LoadOptions, now_ms: u64) -> anyhow::Result<Plan> {
        options.check()?;
        let partitioner = Partitioner::new(options.groups);
        Ok(Plan {
            run_id: options.run_id.clone().unwrap_or_else(|| now_ms.to_string()),
            random: ChaCha8Rng::seed_from_u64(options.seed),
            ads: AdMix::new(options)?,
            steady: SteadyAds::new(options.steady_ads, now_ms),
            partitioner,
            serial: 0,
            repeatable: VecDeque::with_capacity(REPEATABLE_CLICKS),
            newest_ms: vec![0; usize::try_from(partitioner.partitions())?],
            now_ms,
            options: options.clone(),
        })
    }

    /// Returns the next click of the mix, as of `now_ms`.
    pub fn draw(&mut self, now_ms: u64) -> PlannedClick {
        self.now_ms = now_ms;
        let mut dice = self.random.random_range(0.0..100.0);
        let mut falls_in = |percent: f64| {
            dice -= percent;
            dice < 0.0
        };
        let options = &self.options;
        if falls_in(options.duplicate_percent) {
            if let Some(repeat) = self.repeat(now_ms) {
                return repeat;
            }
        } else if falls_in(options.out_of_order_percent) {
            let back_ms = self.random.random_range(0..=(options.out_of_orderness_s * 1_000).max(1) * 9 / 10);
            return self.fresh(Fate::Counted, None, now_ms - back_ms);
        } else if falls_in(options.late_percent) {
            let bound_ms = options.out_of_orderness_s * 1_000;
            let back_ms = self.random.random_range(bound_ms..=bound_ms.max(options.allowed_lateness_s * 250));
            return self.fresh(Fate::LateCounted, Some(DoorKind::Log), now_ms - back_ms);
        } else if falls_in(options.beyond_horizon_percent) {
            if let Some(late) = self.beyond_horizon(now_ms) {
                return late;
            }
        } else if falls_in(options.ahead_percent) {
            let ahead_ms = self.random.random_range(0..=options.ahead_max_s * 1_000);
            return self.fresh(Fate::Counted, None, now_ms + ahead_ms);
        } else if falls_in(options.invalid_percent) {
            let mut click = self.fresh(Fate::Invalid, None, now_ms);
            click.user_agent = ROBOT_AGENT.into();
            return click;
        } else if falls_in(options.malformed_percent) {
            return self.fresh(Fate::Malformed, None, now_ms);
        }
        self.fresh(Fate::Counted, None, now_ms)
    }

    /// Emits the clicks of steady ads that became due by `now_ms`.
    pub fn draw_steady(&mut self, now_ms: u64, emit: &mut dyn FnMut(PlannedClick)) {
        let mut due = Vec::new();
        self.steady.due(now_ms, |ad, at| due.push((ad, at)));
        self.emit_steady(&due, emit);
    }

    /// Completes the current minute of the steady ads.
    pub fn finish_steady(&mut self, now_ms: u64, emit: &mut dyn FnMut(PlannedClick)) {
        let mut due = Vec::new();
        self.steady.finish(now_ms, |ad, at| due.push((ad, at)));
        self.emit_steady(&due, emit);
    }

    fn emit_steady(&mut self, due: &[(u64, u64)], emit: &mut dyn FnMut(PlannedClick)) {
        for &(index, event_time_ms) in due {
            let door = self.door();
            let ad_id = self.options.first_steady_ad + index;
            let event_id = self.next_event_id(self.ads.campaign_of(ad_id));
            emit(self.click(Fate::Counted, door, ad_id, event_time_ms, event_id));
        }
    }

    fn door(&mut self) -> DoorKind {
        match (self.options.urls.is_empty(), self.options.kafka.is_some()) {
            (true, _) => DoorKind::Log,
            (false, false) => DoorKind::Http,
            (false, true) if self.random.random_bool(self.options.http_percent / 100.0) => DoorKind::Http,
            (false, true) => DoorKind::Log,
        }
    }

    fn fresh(&mut self, fate: Fate, door: Option<DoorKind>, event_time_ms: u64) -> PlannedClick {
        let door = door.unwrap_or_else(|| self.door());
        let ad_id = self.ads.draw(&mut self.random);
        if fate == Fate::Counted
            && let Some(event_id) = self.event_of_another_campaign(self.ads.campaign_of(ad_id))
        {
            return self.click(fate, door, ad_id, event_time_ms, event_id);
        }
        let event_id = self.next_event_id(self.ads.campaign_of(ad_id));
        let click = self.click(fate, door, ad_id, event_time_ms, event_id);
        if fate == Fate::Counted && self.options.duplicate_percent > 0.0 {
            if self.repeatable.len() == REPEATABLE_CLICKS {
                self.repeatable.pop_front();
            }
            self.repeatable.push_back(click.clone());
        }
        click
    }

    fn click(&mut self, fate: Fate, door: DoorKind, ad_id: u64, event_time_ms: u64, event_id: String) -> PlannedClick {
        let random = &mut self.random;
        let pick = random.random_range(0..u32::MAX) as usize;
        let click = PlannedClick {
            door,
            fate,
            event_id,
            ad_id,
            campaign_id: self.ads.campaign_of(ad_id),
            event_time_ms,
            user_agent: AGENTS[pick % AGENTS.len()].into(),
            country: COUNTRIES[pick / 7 % COUNTRIES.len()].into(),
            device_type: DEVICES[pick / 61 % DEVICES.len()].into(),
            // TEST-NET-3: addresses that are reserved for documentation (RFC 5737).
            ip_address: format!("203.0.113.{}", pick % 254 + 1),
            user_id: user_of(pick, self.options.users),
            cost_per_click_micros: cost_of(pick, ad_id),
        };
        if door == DoorKind::Log && fate != Fate::Malformed {
            let newest =
                &mut self.newest_ms[usize::from(self.partitioner.shard(click.campaign_id, click.log_click_id()).0)];
            *newest = (*newest).max(event_time_ms.min(self.now_ms));
        }
        click
    }

    /// Returns the next id whose salt was requested.
    fn next_event_id(&mut self, campaign_id: u64) -> String {
        loop {
            self.serial += 1;
            let event_id = format!("{}-{}", self.run_id, self.serial);
            let salts = &self.options.salts;
            if salts.is_empty() || salts.contains(&salt(ClickId::foreign(LOG_SOURCE, campaign_id, &event_id))) {
                return event_id;
            }
        }
    }

    /// Now and then the id of an event that was sent under another campaign. It is a click of its own. The first one is
    /// not repeated after that, so that each pair of campaign and event has one first click.
    fn event_of_another_campaign(&mut self, campaign_id: u64) -> Option<String> {
        let percent = self.options.shared_event_percent;
        if percent == 0.0 || !self.options.salts.is_empty() || self.random.random_range(0.0..100.0) >= percent {
            return None;
        }
        let at = self.repeatable.iter().position(|click| click.campaign_id != campaign_id)?;
        self.repeatable.remove(at).map(|click| click.event_id)
    }

    fn repeat(&mut self, now_ms: u64) -> Option<PlannedClick> {
        while self.repeatable.front().is_some_and(|click| click.event_time_ms + REPEAT_AGE_MAX_MS < now_ms) {
            self.repeatable.pop_front();
        }
        if self.repeatable.is_empty() {
            return None;
        }
        let at = self.random.random_range(0..self.repeatable.len());
        Some(PlannedClick { fate: Fate::Duplicate, ..self.repeatable[at].clone() })
    }

    /// Returns `None` while the click's partition has no record that makes the verdict certain.
    fn beyond_horizon(&mut self, now_ms: u64) -> Option<PlannedClick> {
        let mut click = self.fresh(Fate::BeyondHorizon, Some(DoorKind::Log), 1);
        let newest_ms = self.newest_ms[usize::from(self.partitioner.shard(click.campaign_id, click.log_click_id()).0)];
        let behind_ms =
            (self.options.allowed_lateness_s + self.options.out_of_orderness_s) * 1_000 + MINUTE_MS + HORIZON_MARGIN_MS;
        if newest_ms + MINUTE_MS < now_ms {
            return None;
        }
        let further_ms = self.random.random_range(0..=behind_ms);
        click.event_time_ms = newest_ms.checked_sub(behind_ms + further_ms)?;
        Some(click)
    }
}

/// One click in eleven names no user; with 0 users, no click does.
fn user_of(pick: usize, users: u64) -> String {
    match (pick as u64).checked_rem(users) {
        Some(user) if !pick.is_multiple_of(11) => format!("user-{user}"),
        _ => String::new(),
    }
}

/// From 0.01 to just over 0.25, by ad; one click in thirteen names no cost.
fn cost_of(pick: usize, ad_id: u64) -> i64 {
    if pick.is_multiple_of(13) { 0 } else { (ad_id % 25 + 1) as i64 * 10_000 + (pick % 3) as i64 }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::tally::Tally;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: LoadOptions,
    }

    fn options(extra: &[&str]) -> LoadOptions {
        let base = ["load", "--url", "http://localhost:1", "--kafka", "localhost:2", "--run-id", "r"];
        Cli::parse_from([&base[..], extra].concat()).options
    }

    const NOW: u64 = 1_790_000_000_000;

    fn draw(options: &LoadOptions, count: u64) -> Vec<PlannedClick> {
        let mut plan = Plan::new(options, NOW).unwrap();
        (0..count).map(|n| plan.draw(NOW + n / 10)).collect()
    }

    #[test]
    fn one_seed_draws_one_sequence() {
        let a = draw(&options(&["--seed", "7"]), 5_000);
        assert_eq!(a, draw(&options(&["--seed", "7"]), 5_000));
        assert_ne!(a, draw(&options(&["--seed", "8"]), 5_000));
    }

    #[test]
    fn shares_are_as_asked_for() {
        let options = options(&[
            "--duplicate-percent=2",
            "--out-of-order-percent=3",
            "--late-percent=1",
            "--beyond-horizon-percent=0.5",
            "--invalid-percent=4",
            "--malformed-percent=0.2",
            "--hot-percent=20",
        ]);
        let clicks = draw(&options, 200_000);
        let share = |fate| clicks.iter().filter(|click| click.fate == fate).count() * 1_000 / clicks.len();
        assert!(share(Fate::Duplicate).abs_diff(20) <= 2, "{}", share(Fate::Duplicate));
        assert!(share(Fate::LateCounted).abs_diff(10) <= 1);
        assert!(share(Fate::BeyondHorizon).abs_diff(5) <= 1);
        assert!(share(Fate::Invalid).abs_diff(40) <= 3);
        assert!(share(Fate::Malformed).abs_diff(2) <= 1);
        let hot = clicks.iter().filter(|click| click.ad_id == 1).count() * 100 / clicks.len();
        assert!((20..40).contains(&hot), "{hot} % for the hot ad, which is the first of the others too");
    }

    #[test]
    fn a_duplicate_repeats_an_earlier_click_through_the_same_door() {
        let clicks = draw(&options(&["--duplicate-percent=30"]), 20_000);
        for (at, repeat) in clicks.iter().enumerate().filter(|(_, click)| click.fate == Fate::Duplicate) {
            let original = clicks[..at].iter().find(|click| click.event_id == repeat.event_id).unwrap();
            assert_eq!(
                PlannedClick { fate: Fate::Counted, ..repeat.clone() },
                PlannedClick { fate: Fate::Counted, ..original.clone() }
            );
        }
    }

    #[test]
    fn clicks_dated_ahead_make_no_click_late_before_their_time() {
        let options = options(&["--ahead-percent=10", "--ahead-max-s=200", "--duplicate-percent=0"]);
        let mut plan = Plan::new(&options, NOW).unwrap();
        let ahead = (0..20_000).map(|_| plan.draw(NOW)).filter(|click| click.event_time_ms > NOW);
        let ahead: Vec<PlannedClick> = ahead.collect();
        assert!((1_800..2_200).contains(&ahead.len()), "{}", ahead.len());
        assert!(ahead.iter().all(|click| click.fate == Fate::Counted && click.event_time_ms <= NOW + 200_000));
        assert!(plan.newest_ms.iter().all(|newest| *newest <= NOW));
    }

    #[test]
    fn an_event_of_two_campaigns_is_two_clicks() {
        let clicks = draw(&options(&["--shared-event-percent=5", "--campaigns=8"]), 20_000);
        let mut campaigns: std::collections::HashMap<&str, Vec<u64>> = std::collections::HashMap::new();
        for click in clicks.iter().filter(|click| click.fate == Fate::Counted) {
            campaigns.entry(&click.event_id).or_default().push(click.campaign_id);
        }
        let shared = campaigns.values().filter(|campaigns| campaigns.len() > 1);
        assert!(shared.clone().count() > 500);
        assert!(shared.clone().all(|campaigns| campaigns.len() == 2 && campaigns[0] != campaigns[1]));
        let mut tally = Tally::default();
        clicks.iter().for_each(|click| tally.add(click));
        let expected = clicks.iter().filter(|click| click.fate == Fate::Counted).count() as u64;
        assert_eq!(tally.counted(), expected);
    }

    #[test]
    fn a_click_beyond_the_horizon_follows_one_in_its_partition_that_makes_its_window_final() {
        let options = options(&["--beyond-horizon-percent=5", "--allowed-lateness-s=60"]);
        let partitioner = Partitioner::new(1);
        let mut newest = [0_u64; 16];
        let mut seen = 0;
        for click in
            draw(&options, 20_000).iter().filter(|click| click.door == DoorKind::Log && click.fate != Fate::Malformed)
        {
            let partition = usize::from(partitioner.shard(click.campaign_id, click.log_click_id()).0);
            if click.fate == Fate::BeyondHorizon {
                let window_end = (click.event_time_ms / 60_000 + 1) * 60_000;
                assert!(window_end + 60_000 <= newest[partition] - 5_000);
                seen += 1;
            }
            newest[partition] = newest[partition].max(click.event_time_ms);
        }
        assert!(seen > 500);
    }

    #[test]
    fn a_load_of_some_salts_sends_only_those_salts() {
        let options = Cli::parse_from(["load", "--kafka", "localhost:2", "--salts", "3,11"]).options;
        let found: std::collections::BTreeSet<u16> =
            draw(&options, 1_000).iter().map(|click| salt(click.log_click_id())).collect();
        assert_eq!(found, [3, 11].into());
    }

    #[test]
    fn users_return_and_some_clicks_have_neither_user_nor_cost() {
        let clicks = draw(&options(&["--users=500", "--duplicate-percent=0"]), 20_000);
        let users: std::collections::HashSet<&str> = clicks.iter().map(|click| click.user_id.as_str()).collect();
        assert_eq!(users.len(), 501, "all 500 users, and clicks without a user");
        let of_nobody = clicks.iter().filter(|click| click.user_id.is_empty()).count();
        assert!((1_500..2_200).contains(&of_nobody), "{of_nobody}");
        assert!(clicks.iter().any(|click| click.cost_per_click_micros == 0));
        assert!(draw(&options(&["--users=0"]), 1_000).iter().all(|click| click.user_id.is_empty()));
    }

    #[test]
    fn the_tally_adds_up() {
        let options = options(&["--late-percent=2", "--beyond-horizon-percent=2", "--malformed-percent=1"]);
        let mut tally = Tally::default();
        draw(&options, 30_000).iter().for_each(|click| tally.add(click));
        assert_eq!(tally.sent, 30_000);
        assert_eq!(tally.sent, tally.unique_valid + tally.duplicates + tally.invalid + tally.malformed);
        assert_eq!(tally.counted() + tally.late_beyond, tally.unique_valid);
    }
}
