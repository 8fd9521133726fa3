//! [`ClickLog`] on Apache Kafka: one fetcher or consumer for all shards of a node, one idempotent producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use clicktally_proto::click_log::{ClickLog, LogError, OutRecord, RAW_CLICKS, ShardReader};
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use futures::future::try_join_all;
use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use serde::{Deserialize, Serialize};

use super::direct::{DirectShardReader, Fetcher};
use super::librdkafka_reader::LibrdkafkaShardReader;
use super::topics;

/// The largest raw record taken: bounds what one poisoned record can cost a reader.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an outbound record may add around a raw one (quarantine carries the record and why).
pub(super) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// How long one question to the log may take before the caller is told to ask again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a record may wait for room in the producer, then for its acknowledgement.
const ENQUEUE_TIMEOUT: Duration = Duration::from_secs(5);
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Fetched by the client library for one partition and not yet drained.
const QUEUED_PARTITION_KIB_MAX: usize = 8 * 1024;
/// How often, at most, and how far apart new topics are looked for.
const VISIBLE_ATTEMPTS_MAX: u32 = 300;
const VISIBLE_BACKOFF: Duration = Duration::from_millis(50);
const EVENTS_POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct KafkaLogSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    pub partitioner: Partitioner,
    /// Copies of each partition for topics made by [`KafkaLog::ensure_topics`]; `None`: the brokers' default.
    pub replication: Option<i32>,
    pub fetch: FetchBy,
}

/// What reads the shards' partitions (`docs/decisions/007-direct-fetch.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FetchBy {
    /// The fetcher of this crate, the cheaper one (`docs/performance.md`). Plain TCP, record batches of format 2 (Kafka 0.11 and newer).
    #[default]
    Direct,
    /// The client library, for whatever the fetcher cannot. Reads zstd only where it was built with it.
    Librdkafka,
}

enum ShardReading {
    Direct(Fetcher),
    Librdkafka(Arc<BaseConsumer>),
}

pub struct KafkaLog {
    settings: KafkaLogSettings,
    reading: ShardReading,
    /// Asks the log questions over connections of its own: a broker answers one connection in order, and on the readers' a
    /// question would wait behind a fetch that waits for records.
    queries: Arc<BaseConsumer>,
    producer: RwLock<Arc<FutureProducer>>,
    is_stopping: Arc<AtomicBool>,
}

impl KafkaLog {
    /// Prepares the clients; connects in the background, so a log that is down now is not an error here.
    pub fn connect(settings: KafkaLogSettings) -> Result<KafkaLog, LogError> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let reading = match settings.fetch {
            FetchBy::Direct => {
                let fetcher = Fetcher::start(&settings.brokers).map_err(|error| LogError::Fatal(error.to_string()))?;
                ShardReading::Direct(fetcher)
            }
            FetchBy::Librdkafka => {
                let consumer = Arc::new(new_consumer(&settings)?);
                serve_events(Arc::clone(&consumer), Arc::clone(&is_stopping))
                    .map_err(|error| LogError::Fatal(error.to_string()))?;
                ShardReading::Librdkafka(consumer)
            }
        };
        let queries: Arc<BaseConsumer> = Arc::new(client(&settings).create().map_err(fatal)?);
        let producer = RwLock::new(Arc::new(new_producer(&settings)?));
        Ok(KafkaLog { settings, reading, queries, producer, is_stopping })
    }

    /// Makes the topics that are missing; one that exists keeps its settings. Refuses a raw topic with another number of
    /// partitions than the cluster has shards.
    pub async fn ensure_topics(&self) -> Result<(), LogError> {
        let specs = topics::all(self.settings.partitioner);
        let admin: AdminClient<DefaultClientContext> = client(&self.settings).create().map_err(fatal)?;
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
        let new: Vec<_> = specs.iter().map(|spec| spec.as_new_topic(self.settings.replication)).collect();
        let mut are_new = false;
        for made in admin.create_topics(&new, &options).await.map_err(passing)? {
            match made {
                Ok(_) => are_new = true,
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(LogError::Fatal(format!("cannot make topic {topic}: {code}"))),
            }
        }
        // A broker may not know yet what its controller has just made.
        for _ in 0..VISIBLE_ATTEMPTS_MAX {
            if self.are_ready(are_new).await? {
                return Ok(());
            }
            tokio::time::sleep(VISIBLE_BACKOFF).await;
        }
        Err(LogError::Unavailable("the topics just made are not visible yet".into()))
    }

    /// New partitions are asked for their ends too: known is not yet led.
    async fn are_ready(&self, are_new: bool) -> Result<bool, LogError> {
        let specs = topics::all(self.settings.partitioner);
        let queries = Arc::clone(&self.queries);
        off_thread(move || {
            let metadata = queries.fetch_metadata(None, Timeout::After(ADMIN_TIMEOUT)).map_err(passing)?;
            for spec in &specs {
                let topic = metadata.topics().iter().find(|topic| topic.name() == spec.name);
                match topic.map_or(0, |topic| topic.partitions().len()) {
                    0 => return Ok(false),
                    found => spec.check(found)?,
                }
            }
            let asked = if are_new { &specs[..] } else { &[] };
            let mut partitions =
                asked.iter().flat_map(|spec| (0..spec.partitions).map(move |partition| (spec.name, partition)));
            Ok(partitions.all(|(topic, partition)| {
                queries.fetch_watermarks(topic, partition, Timeout::After(QUERY_TIMEOUT)).is_ok()
            }))
        })
        .await
    }

    async fn publish_with(producer: &FutureProducer, records: &[OutRecord]) -> Result<(), KafkaError> {
        let deliveries = records.iter().map(|out| async move {
            let mut record = FutureRecord::to(out.topic).key(&out.key).payload(&out.value);
            record.partition = out.partition;
            let sent = producer.send(record, Timeout::After(ENQUEUE_TIMEOUT)).await;
            require_offset(&sent.map_err(|(error, _)| error)?)
        });
        try_join_all(deliveries).await.map(|_| ())
    }

    /// One out-of-order sequence makes an idempotent producer fatal for good: a new one takes its place.
    fn replace_if_fatal(&self, broken: &Arc<FutureProducer>) -> Result<(), LogError> {
        let Some((code, reason)) = broken.client().fatal_error() else { return Ok(()) };
        tracing::warn!(%code, reason, "the producer failed for good; starting another");
        let mut current = self.producer.write();
        if Arc::ptr_eq(&current, broken) {
            *current = Arc::new(new_producer(&self.settings)?);
        }
        Ok(())
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl ClickLog for KafkaLog {
    fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError> {
        Ok(match &self.reading {
            ShardReading::Direct(fetcher) => Box::new(DirectShardReader::open(fetcher, shard, from)?),
            ShardReading::Librdkafka(consumer) => Box::new(LibrdkafkaShardReader::open(consumer, shard, from)?),
        })
    }

    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError> {
        let queries = Arc::clone(&self.queries);
        off_thread(move || {
            let (_, end) = queries
                .fetch_watermarks(RAW_CLICKS, shard.partition(), Timeout::After(QUERY_TIMEOUT))
                .map_err(passing)?;
            u64::try_from(end).map_err(|_| LogError::Unavailable(format!("the log answered end offset {end}")))
        })
        .await
    }

    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError> {
        let producer = Arc::clone(&self.producer.read());
        match KafkaLog::publish_with(&producer, &records).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.replace_if_fatal(&producer)?;
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        LogError::Fatal(error.to_string())
                    }
                    _ => passing(error),
                })
            }
        }
    }
}

fn client(settings: &KafkaLogSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "clicktally")
        // Back within a second of the broker's return: the default grows to ten.
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn new_consumer(settings: &KafkaLogSettings) -> Result<BaseConsumer, LogError> {
    client(settings)
        // Required by the client library for any assignment; no group is ever joined and no offset is ever stored there.
        .set("group.id", "clicktally-shards")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        // At its default of a second, a partition whose queue was full stops fetching for that long: catch-up at a quarter.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", QUEUED_PARTITION_KIB_MAX.to_string())
        .set("coordinator.query.interval.ms", "600000")
        .create()
        .map_err(fatal)
}

fn new_producer(settings: &KafkaLogSettings) -> Result<FutureProducer, LogError> {
    client(settings)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.codec", "lz4")
        .set("linger.ms", "2")
        .set("message.max.bytes", (RECORD_BYTES_MAX + ENVELOPE_BYTES_MAX).to_string())
        .set("delivery.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .create()
        .map_err(fatal)
}

/// Serves the client's own news (errors, statistics) until the log is dropped; records never come this way.
fn serve_events(consumer: Arc<BaseConsumer>, is_stopping: Arc<AtomicBool>) -> std::io::Result<()> {
    let serve = move || {
        while !is_stopping.load(Ordering::Relaxed) {
            if let Some(Err(error)) = consumer.poll(EVENTS_POLL) {
                tracing::warn!(%error, "the log's client reports");
            }
        }
    };
    std::thread::Builder::new().name("log-events".into()).spawn(serve).map(|_| ())
}

async fn off_thread<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(question).await.map_err(|error| LogError::Unavailable(error.to_string()))?
}

/// An acknowledgement that does not say where the record lies is none.
///
/// The client library takes a broker's "duplicate sequence number" for a success of an earlier attempt. On a partition just made
/// that is sometimes wrong, and the record is nowhere (found by CT-11). Whoever repeats it writes a duplicate at worst.
pub fn require_offset(delivery: &Delivery) -> Result<(), KafkaError> {
    if delivery.offset >= 0 {
        return Ok(());
    }
    Err(KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber))
}

fn fatal(error: KafkaError) -> LogError {
    LogError::Fatal(error.to_string())
}

fn passing(error: KafkaError) -> LogError {
    LogError::Unavailable(error.to_string())
}
