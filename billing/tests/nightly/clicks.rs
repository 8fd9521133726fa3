//! A seeded day and a half of clicks with everything that goes wrong, and the log they are written to.

use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::invalid_traffic::EVIDENCE_AUTOMATED;
use clicktally_proto::click::record::Click;
use clicktally_proto::identity::ids::{ClickId, SNOWFLAKE_EPOCH_MS};
use clicktally_proto::identity::shard_key::ShardId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::Duration;

use crate::environment::{World, partitioner};

/// 2024-03-01T12:00:00Z: half of the clicks fall on this day, half on the next. Far in the past, so that no clock
/// matters.
pub(crate) const NOON_MS: u64 = SNOWFLAKE_EPOCH_MS + 60 * 86_400_000 + 43_200_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// Bounds a hang only: a busy machine takes many times what an idle one does.
pub(crate) const HANG_MAX: Duration = Duration::from_secs(300);
/// A campaign the catalogue does not know.
pub(crate) const UNKNOWN_CAMPAIGN: u64 = 77;

/// A record of one partition, in the order in which it is produced.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) shard: ShardId,
    /// Empty where the record is malformed.
    pub(crate) clicks: Vec<Click>,
    value: Vec<u8>,
}

pub(crate) fn random_click(rng: &mut ChaCha8Rng) -> Click {
    let n: u64 = rng.random_range(0..1 << 40);
    let is_foreign = rng.random_bool(0.5);
    let event_id = format!("e{n}");
    let campaign_id = if rng.random_bool(0.02) { UNKNOWN_CAMPAIGN } else { rng.random_range(1..=6) };
    Click {
        // Top bit clear and otherwise arbitrary: as good as minted.
        click_id: if is_foreign { ClickId::foreign("shop", campaign_id, &event_id).0 } else { n << 20 | 1 },
        campaign_id,
        ad_id: rng.random_range(1..=12),
        event_time_ms: NOON_MS + rng.random_range(0..24 * HOUR_MS),
        ingest_time_ms: NOON_MS,
        event_id,
        source: "shop".to_owned(),
        user_agent: match rng.random_range(0..30) {
            0 => "Mozilla/5.0 (compatible; GoogleBOT/2.1)".to_owned(),
            1 => "SomeSpider".to_owned(),
            _ => "Mozilla/5.0 (X11; Linux x86_64)".to_owned(),
        },
        country: "PT".to_owned(),
        evidence: if rng.random_bool(0.01) { EVIDENCE_AUTOMATED } else { 0 },
        ..Click::default()
    }
}

/// `unique` clicks, and on top: exact and conflicting copies, clicks from the future, misrouted and malformed records.
pub(crate) fn generate(seed: u64, unique: usize) -> Vec<Logged> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut clicks: Vec<Click> = Vec::new();
    for _ in 0..unique {
        let click = random_click(&mut rng);
        match rng.random_range(0..40) {
            0 | 1 => clicks.insert(rng.random_range(0..=clicks.len()), click.clone()),
            2 => {
                // The same identity, minutes apart, for another ad: whichever is logged first wins.
                let event_time_ms = click.event_time_ms - rng.random_range(0..20 * 60_000);
                clicks.push(Click { event_time_ms, ad_id: click.ad_id % 12 + 1, ..click.clone() });
            }
            3 => clicks.push(Click { event_time_ms: 4_000_000_000_000, ..random_click(&mut rng) }),
            _ => {}
        }
        clicks.push(click);
    }
    pack(&mut rng, clicks)
}

/// Into records of one partition each, in order; some single, some packed, some JSON, some wrong.
fn pack(rng: &mut ChaCha8Rng, clicks: Vec<Click>) -> Vec<Logged> {
    let mut pending: Vec<Vec<Click>> = vec![Vec::new(); 16];
    let mut records = Vec::new();
    for click in clicks {
        let home = partitioner().shard(click.campaign_id, click.id());
        if rng.random_bool(0.005) {
            // Misrouted; its republished copy follows below like any click.
            records.push(record(ShardId((home.0 + 1) % 16), vec![click.clone()]));
        }
        if rng.random_bool(0.005) {
            records.push(Logged {
                shard: home,
                clicks: Vec::new(),
                value: rng.random::<[u8; 3]>().map(|b| b | 0x80).to_vec(),
            });
        }
        if rng.random_bool(0.02) {
            records.push(Logged { shard: home, value: serde_json::to_vec(&click).unwrap(), clicks: vec![click] });
            continue;
        }
        let buffer = &mut pending[usize::from(home.0)];
        buffer.push(click);
        if rng.random_bool(0.2) {
            records.push(record(home, std::mem::take(buffer)));
        }
    }
    for (shard, clicks) in (0..).zip(pending) {
        if !clicks.is_empty() {
            records.push(record(ShardId(shard), clicks));
        }
    }
    records
}

pub(crate) fn record(shard: ShardId, clicks: Vec<Click>) -> Logged {
    Logged { shard, value: encode_record(&clicks), clicks }
}

/// Appends the records in order; returns once all are durable.
pub(crate) fn produce(world: &World, records: &[Logged]) {
    send(&producer(world, &[]), world, records);
}

/// Appends the records in one transaction, as the exactly-once sinks of Flink and Kafka Connect do.
pub(crate) fn produce_transaction(world: &World, records: &[Logged], is_committed: bool) {
    let sink = || {
        let producer = producer(world, &[("transactional.id", "sink")]);
        producer.init_transactions(HANG_MAX).unwrap();
        producer
    };
    let producer = sink();
    producer.begin_transaction().unwrap();
    send(&producer, world, records);
    if is_committed {
        producer.commit_transaction(HANG_MAX).unwrap();
    } else {
        producer.abort_transaction(HANG_MAX).unwrap();
    }
    // A broker writes the markers after it has answered. The next producer of this name waits for them.
    drop(sink());
}

fn producer(world: &World, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers);
    // Keeps the order within a partition across retries.
    config.set("enable.idempotence", "true");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

fn send(producer: &BaseProducer, world: &World, records: &[Logged]) {
    for logged in records {
        let message: BaseRecord<'_, (), Vec<u8>> =
            BaseRecord::to(&world.topic).partition(logged.shard.partition()).payload(&logged.value);
        producer.send(message).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(HANG_MAX).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}
