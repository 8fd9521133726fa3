//! Measures what a click costs before it is counted, and a cell on its way to the replicas.
//! Run it with `cargo bench --bench codec_loops`.

use std::hint::black_box;

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click::view::decode_record;
use clicktally_proto::counts::cell_block::CellBlock;
use clicktally_proto::counts::cell_counts::Counts;
use clicktally_proto::counts::window_cells::WindowCells;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::{ClickId, SNOWFLAKE_EPOCH_MS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CLICKS_PER_RECORD: usize = 100;

/// As large as a click in production: some 130 bytes.
fn click(n: u64) -> Click {
    Click {
        click_id: ClickId::minted(SNOWFLAKE_EPOCH_MS + n, 1, (n % 4_096) as u16).0,
        campaign_id: n % 1_000 + 1,
        ad_id: n % 100_000 + 1,
        event_time_ms: SNOWFLAKE_EPOCH_MS + n,
        ingest_time_ms: SNOWFLAKE_EPOCH_MS + n + 40,
        ip_address: format!("10.{}.{}.7", n % 200, n % 90),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36".into(),
        device_type: "desktop".into(),
        country: "PT".into(),
        region: "Alto Alentejo PT".into(),
        ad_format: "banner".into(),
        ..Click::default()
    }
}

fn decode(criterion: &mut Criterion) {
    let clicks: Vec<Click> = (0..10_000).map(click).collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(clicks.len() as u64));
    let singles: Vec<Vec<u8>> = clicks.iter().map(|click| encode_record(std::slice::from_ref(click))).collect();
    let columns: Vec<Vec<u8>> = clicks.chunks(CLICKS_PER_RECORD).map(encode_record).collect();
    // The packed form of before there were columns.
    let rows = clicks.chunks(CLICKS_PER_RECORD).map(|clicks| {
        let mut record = Vec::new();
        clicks.iter().for_each(|click| prost::encoding::message::encode(100, click, &mut record));
        record
    });
    for (form, records) in [("single", singles), ("packed as rows", rows.collect()), ("packed as columns", columns)] {
        let mut views = Vec::new();
        group.bench_function(form, |bencher| {
            bencher.iter(|| {
                for record in &records {
                    views.clear();
                    decode_record(black_box(record), &mut views).expect("a record that was just encoded");
                }
            });
        });
    }
    group.bench_function("(encoding columns)", |bencher| {
        bencher.iter(|| clicks.chunks(CLICKS_PER_RECORD).map(encode_record).map(|record| record.len()).sum::<usize>());
    });
    group.finish();
}

/// One shard's cells of a minute at 2,800 clicks/s over 100,000 ads.
fn window() -> WindowCells {
    let mut window = WindowCells::new(Minute(29_000_000));
    for n in 0..5_000_u64 {
        let counts = Counts { clicks: if n % 9 == 0 { 2 + n % 40 } else { 1 }, ..Counts::default() };
        window.push((n / 5 + 1, n % 5 * 7_001 + n / 5 + 1), counts);
    }
    window
}

fn cells(criterion: &mut Criterion) {
    let windows = [window()];
    let block = CellBlock::pack_windows(&windows);
    let mut group = criterion.benchmark_group("cells of a checkpoint");
    group.throughput(Throughput::Elements(windows[0].len() as u64));
    group.bench_function("pack", |bencher| bencher.iter(|| CellBlock::pack_windows(black_box(&windows))));
    group.bench_function("unpack", |bencher| bencher.iter(|| black_box(&block).unpack_windows()));
    group.finish();
}

criterion_group!(benches, decode, cells);
criterion_main!(benches);
