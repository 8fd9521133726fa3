//! The traffic, drawn from a seed: everything that a log may hold, honest or not.
//!
//! It has minted and foreign ids, repeats and storms of them, late and very late clicks, clocks that run ahead and far
//! ahead, unreadable records, records in the wrong partition, packed and single ones, users, costs, robots, silent
//! partitions, and an hour's backlog at the start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::event_time::{EventTimeRules, UnixMillis, WINDOW_MS};
use clicktally_proto::identity::ids::{ClickId, SnowflakeMinter};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};

use super::edition::{Edition, Story};
use super::foreign_id::foreign_id;
use super::random::{Seed, Stream};

/// Originals that may still be repeated.
const RECENT_MAX: usize = 256;
const ROBOT: &str = "examplebot/1.0";
const PEOPLE: &str = "Mozilla/5.0";

/// The shares of each kind of traffic. Chances are in thousandths.
#[derive(Debug, Clone)]
pub struct TrafficPlan {
    pub campaigns: u64,
    pub ads_per_campaign: u64,
    /// One ad gets nearly all clicks.
    pub is_viral: bool,
    /// Clicks drawn at each tick.
    pub clicks_per_tick: u64,
    pub packed_max: u64,
    pub foreign: u64,
    pub repeats: u64,
    pub late: u64,
    pub beyond_lateness: u64,
    pub far_ahead: u64,
    pub garbage: u64,
    pub misrouted: u64,
    pub robots: u64,
    /// Partitions without records.
    pub silent: Vec<ShardId>,
    /// The clicks of the first tick are spread over this much event time before the start.
    pub backlog_ms: u64,
}

impl TrafficPlan {
    pub fn draw(seed: Seed, partitions: u16) -> TrafficPlan {
        let mut random = seed.stream("traffic plan");
        let random = &mut random;
        let mut rarely = |of: u64| if random.permille(500) { random.below(of) } else { 0 };
        let (repeats, late, beyond_lateness) = (rarely(400), rarely(200), rarely(100));
        let (far_ahead, garbage, misrouted) = (rarely(40), rarely(40), rarely(60));
        let foreign = rarely(1_000);
        let silent_chance = if random.permille(400) { random.below(400) } else { 0 };
        TrafficPlan {
            campaigns: random.between(1, 4),
            ads_per_campaign: random.between(1, 6),
            is_viral: random.permille(250),
            clicks_per_tick: random.between(2, 12),
            packed_max: if random.permille(500) { random.between(2, 12) } else { 1 },
            foreign,
            repeats,
            late,
            beyond_lateness,
            far_ahead,
            garbage,
            misrouted,
            robots: random.below(100),
            silent: (0..partitions).filter(|_| random.permille(silent_chance)).map(ShardId).collect(),
            backlog_ms: if random.permille(250) { random.between(2, 8) * WINDOW_MS } else { 0 },
        }
    }
}

/// A spell of unusual traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storm {
    None,
    /// Nearly every click is a repeat.
    Repeats,
    /// Half of the clicks are almost too late, or too late.
    Late,
    /// No clicks.
    Silence,
}

/// One record for the raw topic.
#[derive(Debug, Clone)]
pub struct Produced {
    /// The partition it goes to, which is not its own if it is misrouted.
    pub shard: ShardId,
    pub value: Arc<[u8]>,
    /// The ids of its clicks; empty for garbage.
    pub ids: Vec<u64>,
}

/// Clicks that are dated ahead of their arrival, as far as the rules allow. Drawn from a stream of their own.
#[derive(Debug)]
struct AheadClicks {
    random: Stream,
    /// This many of a thousand clicks.
    chance: u64,
}

impl AheadClicks {
    fn draw(story: Story) -> AheadClicks {
        let mut random = story.seed.stream("clicks ahead");
        let is_wanted = story.edition >= Edition::AHEAD && random.permille(500);
        let chance = if is_wanted { random.between(1, 60) } else { 0 };
        AheadClicks { random, chance }
    }

    fn next(&mut self, now_ms: UnixMillis, max_ahead_ms: u64) -> Option<UnixMillis> {
        let is_ahead = self.chance > 0 && self.random.permille(self.chance);
        is_ahead.then(|| now_ms + self.random.between(1, max_ahead_ms.max(1)))
    }
}

/// Events that a producer reports under two campaigns. Drawn from a stream of their own.
#[derive(Debug)]
struct SharedEvents {
    random: Stream,
    /// Whether ids are made as producers make them. In earlier editions an event had one campaign, and its id was any
    /// hash of it.
    has_campaigns: bool,
    /// This many of a thousand events.
    chance: u64,
}

impl SharedEvents {
    fn draw(story: Story) -> SharedEvents {
        let mut random = story.seed.stream("shared events");
        let has_campaigns = story.edition >= Edition::FOUR_GROUPS;
        let chance = if has_campaigns && random.permille(500) { random.between(1, 200) } else { 0 };
        SharedEvents { random, has_campaigns, chance }
    }

    /// Now and then an event that another campaign has reported.
    fn next(&mut self, campaign_id: u64, recent: &VecDeque<Click>) -> Option<String> {
        if self.chance == 0 || !self.random.permille(self.chance) {
            return None;
        }
        let is_shared = |click: &&Click| !click.event_id.is_empty() && click.campaign_id != campaign_id;
        recent.iter().rev().find(is_shared).map(|click| click.event_id.clone())
    }

    fn id(&self, campaign_id: u64, event_id: &str) -> ClickId {
        if self.has_campaigns { ClickId::foreign("shop", campaign_id, event_id) } else { foreign_id("shop", event_id) }
    }
}

#[derive(Debug)]
pub struct Traffic {
    random: Stream,
    ahead: AheadClicks,
    shared: SharedEvents,
    plan: TrafficPlan,
    partitioner: Partitioner,
    rules: EventTimeRules,
    minter: SnowflakeMinter,
    foreign_ids: u64,
    recent: VecDeque<Click>,
    storm: Storm,
    has_begun: bool,
}

impl Traffic {
    pub fn new(story: Story, plan: TrafficPlan, partitioner: Partitioner, rules: EventTimeRules) -> Traffic {
        Traffic {
            random: story.seed.stream("traffic"),
            ahead: AheadClicks::draw(story),
            shared: SharedEvents::draw(story),
            plan,
            partitioner,
            rules,
            minter: SnowflakeMinter::new(7),
            foreign_ids: 0,
            recent: VecDeque::new(),
            storm: Storm::None,
            has_begun: false,
        }
    }

    pub fn set_storm(&mut self, storm: Storm) {
        self.storm = storm;
    }

    /// The records of one tick. `now_ms`: the wall time at the producer.
    pub fn tick(&mut self, now_ms: UnixMillis) -> Vec<Produced> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let backlog_ms = if is_first { self.plan.backlog_ms } else { 0 };
        let clicks = match self.storm {
            Storm::Silence => 0,
            _ if backlog_ms > 0 => self.plan.clicks_per_tick * 30,
            _ => self.random.between(0, 2 * self.plan.clicks_per_tick),
        };
        let mut produced = Vec::new();
        let mut waiting: BTreeMap<ShardId, Vec<Click>> = BTreeMap::new();
        for n in 0..clicks {
            let back_ms = backlog_ms - backlog_ms * n / clicks.max(1);
            let click = self.click(now_ms - back_ms);
            let own = self.partitioner.shard(click.campaign_id, click.id());
            if self.plan.silent.contains(&own) {
                continue;
            }
            let shard = if self.random.permille(self.plan.misrouted) { self.other_than(own) } else { own };
            waiting.entry(shard).or_default().push(click);
        }
        if self.random.permille(self.plan.garbage * clicks.min(4)) {
            let shard = self.other_than(ShardId(0));
            produced.push(Produced { shard, value: [0xff_u8, 0xff, 0xff].as_slice().into(), ids: Vec::new() });
        }
        for (shard, clicks) in waiting {
            let packed = usize::try_from(self.random.between(1, self.plan.packed_max)).unwrap_or(1);
            for clicks in clicks.chunks(packed) {
                let ids = clicks.iter().map(|click| click.click_id).collect();
                produced.push(Produced { shard, value: encode_record(clicks).into(), ids });
            }
        }
        produced
    }

    fn other_than(&mut self, shard: ShardId) -> ShardId {
        let partitions = u64::from(self.partitioner.partitions().unsigned_abs());
        let step = self.random.between(1, partitions - 1);
        ShardId(u16::try_from((u64::from(shard.0) + step) % partitions).unwrap_or(0))
    }

    fn click(&mut self, now_ms: UnixMillis) -> Click {
        let repeats = if self.storm == Storm::Repeats { 950 } else { self.plan.repeats };
        if self.random.permille(repeats)
            && let Some(original) = self.random.pick(self.recent.make_contiguous()).cloned()
        {
            // Sometimes a repeat has another event time.
            let shift_ms = if self.random.permille(200) { self.random.below(2 * WINDOW_MS) } else { 0 };
            return Click { event_time_ms: original.event_time_ms.saturating_sub(shift_ms), ..original };
        }
        let click = self.original(now_ms);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(click.clone());
        click
    }

    fn original(&mut self, now_ms: UnixMillis) -> Click {
        let (plan, random) = (&self.plan, &mut self.random);
        let is_star = plan.is_viral && random.permille(900);
        let campaign_id = if is_star { 1 } else { 1 + random.zipf(plan.campaigns) };
        let ad_id = 100 * campaign_id + if is_star { 0 } else { random.zipf(plan.ads_per_campaign) };
        let event_time_ms = event_time(random, plan, self.rules, self.storm, now_ms);
        let event_time_ms = self.ahead.next(now_ms, self.rules.max_ahead_ms).unwrap_or(event_time_ms);
        let event_id = if random.permille(plan.foreign) {
            self.foreign_ids += 1;
            let own = format!("event-{}", self.foreign_ids);
            self.shared.next(campaign_id, &self.recent).unwrap_or(own)
        } else {
            String::new()
        };
        let click_id = match &*event_id {
            "" => self.minter.mint(now_ms),
            event_id => self.shared.id(campaign_id, event_id),
        };
        let user = random.below(40);
        Click {
            click_id: click_id.0,
            campaign_id,
            ad_id,
            event_time_ms,
            ingest_time_ms: now_ms,
            event_id,
            user_id: if user == 0 { String::new() } else { format!("user-{user}") },
            user_agent: if random.permille(plan.robots) { ROBOT.into() } else { PEOPLE.into() },
            cost_per_click_micros: if random.permille(300) { i64::try_from(random.below(900)).unwrap_or(0) } else { 0 },
            ..Click::default()
        }
    }
}

fn event_time(
    random: &mut Stream,
    plan: &TrafficPlan,
    rules: EventTimeRules,
    storm: Storm,
    now_ms: UnixMillis,
) -> UnixMillis {
    let (late, beyond) = if storm == Storm::Late { (500, 250) } else { (plan.late, plan.beyond_lateness) };
    let horizon_ms = rules.allowed_lateness_ms + WINDOW_MS;
    if random.permille(plan.far_ahead) {
        now_ms + rules.max_ahead_ms + random.between(1, 4 * WINDOW_MS)
    } else if random.permille(beyond) {
        now_ms - horizon_ms - random.below(2 * WINDOW_MS)
    } else if random.permille(late) {
        now_ms - rules.out_of_orderness_ms - random.below(horizon_ms)
    } else {
        now_ms - random.below(rules.out_of_orderness_ms.max(1))
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::click::view::decode_record_owned;

    use super::*;

    fn run(seed: u64) -> Vec<Produced> {
        let story = Story::newest(seed);
        let plan = TrafficPlan { garbage: 100, misrouted: 100, repeats: 300, ..TrafficPlan::draw(story.seed, 16) };
        let mut traffic = Traffic::new(story, plan, Partitioner::new(1), EventTimeRules::default());
        (0..100).flat_map(|tick| traffic.tick(1_800_000_000_000 + tick * 500)).collect()
    }

    #[test]
    fn a_seed_says_every_byte() {
        let bytes = |seed| run(seed).into_iter().map(|record| (record.shard, record.value)).collect::<Vec<_>>();
        assert_eq!(bytes(3), bytes(3));
        assert_ne!(bytes(3), bytes(4));
    }

    #[test]
    fn there_are_repeats_garbage_and_records_in_the_wrong_partition() {
        let records = run(5);
        let clicks: Vec<(ShardId, Click)> = records
            .iter()
            .flat_map(|record| {
                decode_record_owned(&record.value).unwrap_or_default().into_iter().map(|c| (record.shard, c))
            })
            .collect();
        let mut ids: Vec<u64> = clicks.iter().map(|(_, click)| click.click_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() < clicks.len());
        assert!(records.iter().any(|record| record.ids.is_empty()));
        let own = |click: &Click| Partitioner::new(1).shard(click.campaign_id, click.id());
        assert!(clicks.iter().any(|(shard, click)| own(click) != *shard));
    }
}
