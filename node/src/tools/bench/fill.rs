//! Fills the raw topic: minted ids at a steady rate of event time, skewed ads, one click in fifty sent twice. The
//! figures of other systems were measured with the same mix, so that they are comparable.

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::{ClickLog, OutRecord, RAW_CLICKS};
use clicktally_proto::clock::Clock;
use clicktally_proto::identity::ids::SnowflakeMinter;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

/// Records handed to the producer before their acknowledgements are awaited.
const RECORDS_IN_FLIGHT_MAX: usize = 5_000;
/// The rate in event time, not of reading: ten million clicks are one hour of event time, however fast they are read.
const CLICKS_PER_SECOND: u64 = 2_778;
const DUPLICATE_EVERY: u64 = 50;
const CAMPAIGNS: u64 = 1_000;
const AD_SKEW: f64 = 1.0;

pub(super) struct Filled {
    pub(super) clicks: u64,
    pub(super) distinct: u64,
    pub(super) records: u64,
}

pub(super) struct FillPlan {
    pub(super) clicks: u64,
    pub(super) clicks_per_record: usize,
    pub(super) ads: u64,
    /// Distinct users; 0 for clicks that name no user.
    pub(super) users: u64,
    pub(super) seed: u64,
}

pub(super) async fn fill(log: &dyn ClickLog, clock: &dyn Clock, plan: &FillPlan) -> anyhow::Result<Filled> {
    let partitioner = Partitioner::new(1);
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let ads = Zipf::new(plan.ads as f64, AD_SKEW)?;
    let mut minter = SnowflakeMinter::new(1);
    let event_time_of = |click: u64| click * 1_000 / CLICKS_PER_SECOND;
    let start_ms = clock.now_ms() - event_time_of(plan.clicks);
    let mut packs: Vec<Vec<Click>> = vec![Vec::new(); usize::try_from(partitioner.partitions())?];
    let mut records = Vec::new();
    let mut filled = Filled { clicks: 0, distinct: 0, records: 0 };
    while filled.clicks < plan.clicks {
        let event_time_ms = start_ms + event_time_of(filled.clicks);
        let ad_id = ads.sample(&mut random) as u64;
        let click = click(minter.mint(event_time_ms).0, ad_id, event_time_ms, random.random(), plan.users);
        let shard = partitioner.shard(click.campaign_id, click.id());
        let pack = &mut packs[usize::from(shard.0)];
        let copies = 1 + u64::from(filled.distinct.is_multiple_of(DUPLICATE_EVERY));
        filled.distinct += 1;
        for _ in 0..copies.min(plan.clicks - filled.clicks) {
            filled.clicks += 1;
            pack.push(click.clone());
            if pack.len() == plan.clicks_per_record {
                records.push(record(shard, pack));
                pack.clear();
            }
        }
        if records.len() >= RECORDS_IN_FLIGHT_MAX {
            filled.records += records.len() as u64;
            log.publish(std::mem::take(&mut records)).await?;
        }
    }
    for (shard, pack) in ShardId::of_group(clicktally_proto::identity::shard_key::GroupId(0)).zip(&packs) {
        if !pack.is_empty() {
            records.push(record(shard, pack));
        }
    }
    filled.records += records.len() as u64;
    log.publish(records).await?;
    Ok(filled)
}

fn record(shard: ShardId, clicks: &[Click]) -> OutRecord {
    OutRecord { topic: RAW_CLICKS, partition: Some(shard.partition()), key: Vec::new(), value: encode_record(clicks) }
}

/// Returns a click as wide as one in production, whether it names a user or not.
fn click(click_id: u64, ad_id: u64, event_time_ms: u64, noise: u32, users: u64) -> Click {
    let [a, b, c, d] = noise.to_be_bytes();
    Click {
        click_id,
        campaign_id: ad_id % CAMPAIGNS + 1,
        ad_id,
        event_time_ms,
        ingest_time_ms: event_time_ms + 40,
        user_id: u64::from(noise).checked_rem(users).map(|user| format!("{user:08x}")).unwrap_or_default(),
        ip_address: format!("{a}.{b}.{c}.{d}"),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36".into(),
        device_type: "desktop".into(),
        country: "PT".into(),
        region: if users == 0 { "Alto Alentejo PT".into() } else { "Lisboa".into() },
        ad_format: "banner".into(),
        ..Click::default()
    }
}
