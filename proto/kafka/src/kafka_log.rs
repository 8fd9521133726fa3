//! [`ClickLog`] on Apache Kafka: one fetcher or consumer for all shards of a node, one durable producer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::click_log::{ClickLog, LOG_CLOCK, LogError, OutRecord, RAW_CLICKS, ShardReader};
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::log_id::LogId;
use clicktally_proto::identity::shard_key::{Partitioner, ShardId};
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;
use rdkafka::util::Timeout;

use super::client_error::log_error;
use super::connection::{DurableProducer, KafkaConnection, QueryClient};
use super::direct;
use super::partition_readers::{FetchBy, PartitionReaders};
use super::topics::{self, TopicSpec};

/// How long one question to the log may take before the caller is told to ask again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often, at most, and how far apart new topics are looked for.
const VISIBLE_ATTEMPTS_MAX: u32 = 300;
const VISIBLE_BACKOFF: Duration = Duration::from_millis(50);
/// Answers with raw records that a node's shards have not counted yet.
const NODE_HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct KafkaLogSettings {
    pub connection: KafkaConnection,
    pub partitioner: Partitioner,
    /// Copies of each partition for topics made by [`KafkaLog::ensure_topics`]; `None`: the brokers' default.
    pub replication: Option<i32>,
    pub fetch: FetchBy,
}

pub struct KafkaLog {
    settings: KafkaLogSettings,
    readers: PartitionReaders,
    /// Asks the log questions over connections of its own. A broker answers one connection in order, so on the readers'
    /// connection a question would wait behind a fetch that waits for records.
    queries: Arc<QueryClient>,
    producer: DurableProducer,
}

impl KafkaLog {
    /// Prepares the clients. They connect in the background, so a log that is down now is not an error here.
    pub fn connect(settings: KafkaLogSettings) -> Result<KafkaLog, LogError> {
        let connection = &settings.connection;
        let readers = PartitionReaders::start(connection, RAW_CLICKS, settings.fetch, NODE_HELD_BYTES_MAX)?;
        let queries = Arc::new(connection.query_client().map_err(log_error)?);
        let producer = connection.durable_producer().map_err(log_error)?;
        Ok(KafkaLog { settings, readers, queries, producer })
    }

    /// Makes the topics that are missing, and checks the settings of all of them.
    ///
    /// # Errors
    /// [`LogError::Fatal`] if the raw topic has another number of partitions than the cluster has shards, or if a topic
    /// has settings under which clicks would be lost or counts would seem fresh. It names the cure of each.
    pub async fn ensure_topics(&self) -> Result<(), LogError> {
        self.make_topics().await?;
        self.check_topics().await
    }

    /// Checks the settings of all topics.
    ///
    /// # Errors
    /// As [`KafkaLog::ensure_topics`].
    pub async fn check_topics(&self) -> Result<(), LogError> {
        let KafkaLogSettings { connection, partitioner, replication, .. } = &self.settings;
        let specs = topics::all(*partitioner, *replication);
        let copies = self.copies().await?;
        let admin = connection.admin().map_err(log_error)?;
        let asked: Vec<_> = specs.iter().map(|spec| ResourceSpecifier::Topic(spec.name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let mut wrong = Vec::new();
        for (spec, described) in specs.iter().zip(admin.describe_configs(&asked, &options).await.map_err(log_error)?) {
            let described = described.map_err(|code| {
                LogError::Unavailable(format!("the settings of topic {} cannot be read: {code}", spec.name))
            })?;
            let values = described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            let copies = copies.get(spec.name).copied().unwrap_or(0);
            wrong.extend(spec.complaints(&values.collect(), copies, *replication, connection.brokers()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(LogError::Fatal(wrong.join("; "))) }
    }

    /// The copies of each topic's partition that has the fewest.
    async fn copies(&self) -> Result<BTreeMap<String, usize>, LogError> {
        let queries = Arc::clone(&self.queries);
        off_thread(move || {
            let metadata = queries.ask(|log| log.fetch_metadata(None, Timeout::After(ADMIN_TIMEOUT)))?;
            let least =
                |topic: &MetadataTopic| topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), least(topic))).collect())
        })
        .await
    }

    async fn make_topics(&self) -> Result<(), LogError> {
        let specs = topics::all(self.settings.partitioner, self.settings.replication);
        let admin = self.settings.connection.admin().map_err(log_error)?;
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
        let values = specs.each_ref().map(TopicSpec::values);
        let new = specs.iter().zip(&values).map(|(spec, values)| spec.as_new_topic(values, self.settings.replication));
        let new: Vec<_> = new.collect();
        let mut are_new = false;
        for made in admin.create_topics(&new, &options).await.map_err(log_error)? {
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

    /// Asks new partitions for their ends too: a partition that is known may not have a leader yet.
    async fn are_ready(&self, are_new: bool) -> Result<bool, LogError> {
        let specs = topics::all(self.settings.partitioner, self.settings.replication);
        let queries = Arc::clone(&self.queries);
        off_thread(move || {
            let metadata = queries.ask(|log| log.fetch_metadata(None, Timeout::After(ADMIN_TIMEOUT)))?;
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
                queries.ask(|log| log.fetch_watermarks(topic, partition, Timeout::After(QUERY_TIMEOUT))).is_ok()
            }))
        })
        .await
    }
}

#[async_trait::async_trait]
impl ClickLog for KafkaLog {
    fn open(&self, shard: ShardId, from: u64) -> Result<Box<dyn ShardReader>, LogError> {
        self.readers.open(shard, from)
    }

    async fn log_id(&self) -> Result<Option<LogId>, LogError> {
        direct::topic_id(&self.settings.connection, RAW_CLICKS).await
    }

    async fn end_offset(&self, shard: ShardId) -> Result<u64, LogError> {
        let queries = Arc::clone(&self.queries);
        off_thread(move || {
            let (_, end) = queries
                .ask(|log| log.fetch_watermarks(RAW_CLICKS, shard.partition(), Timeout::After(QUERY_TIMEOUT)))?;
            u64::try_from(end).map_err(|_| LogError::Unavailable(format!("the log answered end offset {end}")))
        })
        .await
    }

    async fn time_ms(&self) -> Result<UnixMillis, LogError> {
        let question = OutRecord { topic: LOG_CLOCK, partition: Some(0), key: Vec::new(), value: Vec::new() };
        self.producer.stamp(&question).await
    }

    async fn publish(&self, records: Vec<OutRecord>) -> Result<(), LogError> {
        self.producer.write(&records).await
    }
}

async fn off_thread<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(question).await.map_err(|error| LogError::Unavailable(error.to_string()))?
}
