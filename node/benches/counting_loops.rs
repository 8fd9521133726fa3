//! What a decoded click costs a shard: is it new, and where is it counted. `cargo bench --bench counting_loops`

use std::hint::black_box;

use clicktally_node::shard::aggregator::Aggregators;
use clicktally_node::shard::dedup::{Horizon, SeenIds};
use clicktally_proto::click::view::ClickView;
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::event_time::{EventTimeRules, Minute, WINDOW_MS};
use clicktally_proto::identity::ids::{ClickId, SNOWFLAKE_EPOCH_MS, SnowflakeMinter};
use clicktally_proto::identity::shard_key::{Place, salt};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

const SALT: u16 = 5;
const CLICKS: usize = 100_000;
/// The clicks that one shard reads in a minute; there are ten minutes of them.
const CLICKS_PER_MINUTE: usize = 10_000;
const HORIZON: Horizon = Horizon {
    rules: EventTimeRules {
        out_of_orderness_ms: 5_000,
        allowed_lateness_ms: 15 * WINDOW_MS,
        retain_final_ms: 0,
        max_ahead_ms: WINDOW_MS,
    },
    watermark_ms: 0,
};

fn minute_of(number: usize) -> Minute {
    Minute((number / CLICKS_PER_MINUTE) as u32)
}

fn dedup(criterion: &mut Criterion) {
    let mut minter = SnowflakeMinter::new(3);
    let minted = (0_u64..).map(|n| minter.mint(SNOWFLAKE_EPOCH_MS + n / 3)).filter(|id| salt(*id) == SALT);
    let minted: Vec<Place> = minted.take(CLICKS).map(Place::of).collect();
    let foreign = (1..=CLICKS as u64)
        .map(|n| Place::of(ClickId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !15 | u64::from(SALT) | 1 << 63)));
    let foreign: Vec<Place> = foreign.collect();
    let mut group = criterion.benchmark_group("dedup");
    group.throughput(Throughput::Elements(CLICKS as u64));
    for (name, places) in [("minted ids", minted), ("foreign ids", foreign)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut seen = SeenIds::default();
                for (number, place) in places.iter().enumerate() {
                    black_box(seen.insert(*place, minute_of(number), &HORIZON));
                }
            });
        });
    }
    group.finish();
}

fn aggregate(criterion: &mut Criterion) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut group = criterion.benchmark_group("aggregate and pack");
    group.throughput(Throughput::Elements(CLICKS as u64));
    for ads in [1.0, 100_000.0] {
        let zipf = Zipf::new(ads, 1.0).expect("both numbers are in range");
        let click = |_| {
            let ad_id = zipf.sample(&mut random) as u64;
            let campaign_id = ad_id % 1_000 + 1;
            let (click_id, event_time_ms) = (ClickId(1), 0);
            ClickView {
                click_id,
                campaign_id,
                ad_id,
                event_time_ms,
                is_invalid: false,
                user: None,
                cost_per_click_micros: 0,
            }
        };
        let clicks: Vec<ClickView> = (0..CLICKS).map(click).collect();
        let mut aggregators = Aggregators::default();
        group.bench_function(format!("{ads} ads"), |bencher| {
            bencher.iter(|| {
                for (number, click) in clicks.iter().enumerate() {
                    aggregators.count(minute_of(number), click);
                }
                CellBlock::pack_windows(&aggregators.take_cells())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, dedup, aggregate);
criterion_main!(benches);
