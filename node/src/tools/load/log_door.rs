//! Clicks straight into the topic `raw_clicks`, packed, as the log watcher writes them.
//!
//! It uses one idempotent producer, so that the records of a partition arrive in the order of the plan, also across
//! retries. The verdict on clicks beyond the horizon depends on that order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clicktally_kafka::connection::{KafkaConnection, require_offset};
use clicktally_proto::click::encode::encode_record;
use clicktally_proto::click::record::Click;
use clicktally_proto::click_log::RAW_CLICKS;
use clicktally_proto::identity::shard_key::Partitioner;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use tokio::sync::mpsc;

use super::door::{Batch, Door, QUEUE_BATCHES_MAX};
use super::options::LoadOptions;
use super::plan::{Fate, LOG_SOURCE, PlannedClick};
use super::progress::LoadWatch;

/// The number of records that may wait for their acknowledgement.
const RECORDS_IN_FLIGHT_MAX: usize = 1_000;
/// A batch of clicks fills this many records, before it is packed by partition.
const RECORDS_PER_BATCH: usize = 16;

pub(super) fn open(options: &LoadOptions, bootstrap: &str, watch: &Arc<LoadWatch>) -> anyhow::Result<Door> {
    let give_up = Duration::from_secs(options.give_up_s);
    let producer =
        KafkaConnection::plaintext(bootstrap).load_producer(give_up).context("cannot make a Kafka producer")?;
    let (queue, batches) = mpsc::channel(QUEUE_BATCHES_MAX);
    let packer = Packer {
        producer,
        partitioner: Partitioner::new(options.groups),
        record_clicks_max: options.record_clicks,
        watch: watch.clone(),
    };
    let task = tokio::spawn(packer.work(batches));
    Ok(Door::new("log", options.record_clicks.saturating_mul(RECORDS_PER_BATCH), queue, task))
}

/// One record: many clicks of one partition.
struct Packed {
    partition: i32,
    clicks: usize,
    record: Vec<u8>,
}

/// A record, and the outcome of sending it.
type Sent = (Packed, <DeliveryFuture as Future>::Output);

struct Packer {
    producer: FutureProducer,
    partitioner: Partitioner,
    record_clicks_max: usize,
    watch: Arc<LoadWatch>,
}

impl Packer {
    async fn work(self, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(sent) = in_flight.next() => in_flight.extend(self.settle(sent)?),
                batch = batches.recv(), if in_flight.len() < RECORDS_IN_FLIGHT_MAX => {
                    let Some(batch) = batch else { break };
                    for packed in self.pack(batch) {
                        in_flight.push(self.send(packed)?);
                    }
                }
            }
        }
        while let Some(sent) = in_flight.next().await {
            in_flight.extend(self.settle(sent)?);
        }
        Ok(())
    }

    /// Sends the record again if necessary, and returns that sending.
    fn settle(&self, (packed, outcome): Sent) -> anyhow::Result<Option<BoxFuture<'static, Sent>>> {
        let delivery = outcome.context("the producer was dropped")?;
        let delivery = delivery.map_err(|(error, _)| error).context("the log did not acknowledge a record")?;
        if require_offset(&delivery).is_err() {
            self.watch.add_repeat();
            return self.send(packed).map(Some);
        }
        self.watch.add_acknowledged(packed.clicks);
        Ok(None)
    }

    fn send(&self, packed: Packed) -> anyhow::Result<BoxFuture<'static, Sent>> {
        let message = FutureRecord::<(), Vec<u8>>::to(RAW_CLICKS).partition(packed.partition).payload(&packed.record);
        let delivery = self.producer.send_result(message).map_err(|(error, _)| error);
        let delivery = delivery.context("the producer accepted no record")?;
        Ok(async move { (packed, delivery.await) }.boxed())
    }

    /// Packs the clicks by partition. The clicks of a partition stay in order.
    fn pack(&self, batch: Batch) -> Vec<Packed> {
        let mut records = Vec::new();
        let mut partitions: HashMap<i32, Vec<Click>> = HashMap::new();
        for click in batch {
            let id = click.log_click_id();
            let partition = self.partitioner.shard(click.campaign_id, id).partition();
            if click.fate == Fate::Malformed {
                // The length exceeds the record, so no version of the schema can decode it.
                records.push(Packed { partition, clicks: 1, record: vec![0x0a, 0xff, 0x01, 0x42] });
                continue;
            }
            let packed = partitions.entry(partition).or_default();
            packed.push(wire_form(click));
            if packed.len() == self.record_clicks_max {
                records.push(Packed { partition, clicks: packed.len(), record: encode_record(packed) });
                packed.clear();
            }
        }
        let rest = partitions.into_iter().filter(|(_, clicks)| !clicks.is_empty());
        records.extend(rest.map(|(partition, clicks)| Packed {
            partition,
            clicks: clicks.len(),
            record: encode_record(&clicks),
        }));
        records
    }
}

fn wire_form(click: PlannedClick) -> Click {
    Click {
        click_id: click.log_click_id().0,
        campaign_id: click.campaign_id,
        ad_id: click.ad_id,
        event_time_ms: click.event_time_ms,
        ingest_time_ms: click.event_time_ms,
        event_id: click.event_id,
        source: LOG_SOURCE.to_owned(),
        user_id: click.user_id,
        ip_address: click.ip_address,
        user_agent: click.user_agent.into_owned(),
        device_type: click.device_type.into_owned(),
        country: click.country.into_owned(),
        cost_per_click_micros: click.cost_per_click_micros,
        ..Click::default()
    }
}
