//! Reads: `window_counts` and `late_clicks`, with a consumer on a thread of its own that keeps a little ahead of the tables.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clicktally_proto::click_log::{LATE_CLICKS, WINDOW_COUNTS};
use clicktally_proto::clock::Clock;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::window_rows::WindowRows;
use super::window_writer::{OutProgress, OutReader, OutTopics, SinkError};

/// Batches read ahead of the tables.
const BATCHES_AHEAD_MAX: usize = 2;
const POLL: Duration = Duration::from_millis(100);
const BROKER_DEADLINE: Duration = Duration::from_secs(10);

pub struct KafkaOutTopics {
    brokers: String,
    clock: Arc<dyn Clock>,
}

impl KafkaOutTopics {
    /// `brokers`: bootstrap servers.
    pub fn new(brokers: String, clock: Arc<dyn Clock>) -> KafkaOutTopics {
        KafkaOutTopics { brokers, clock }
    }
}

impl From<KafkaError> for SinkError {
    fn from(error: KafkaError) -> SinkError {
        SinkError::Topics(error.into())
    }
}

#[async_trait]
impl OutTopics for KafkaOutTopics {
    async fn read_from(&self, progress: OutProgress) -> Result<Box<dyn OutReader>, SinkError> {
        let (batches, read) = mpsc::channel(BATCHES_AHEAD_MAX);
        let (brokers, clock) = (self.brokers.clone(), Arc::clone(&self.clock));
        // Dropping `read` ends it at its next batch.
        let thread = tokio::task::spawn_blocking(move || read_batches(&brokers, &progress, clock.as_ref(), &batches));
        Ok(Box::new(KafkaOutReader { read, thread }))
    }
}

struct KafkaOutReader {
    read: mpsc::Receiver<WindowRows>,
    thread: JoinHandle<Result<(), SinkError>>,
}

#[async_trait]
impl OutReader for KafkaOutReader {
    async fn next(&mut self) -> Result<WindowRows, SinkError> {
        if let Some(rows) = self.read.recv().await {
            return Ok(rows);
        }
        match (&mut self.thread).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(SinkError::Topics("the reader has stopped".into())),
            Err(error) => Err(SinkError::Topics(error.into())),
        }
    }
}

/// On a blocking thread: reads both topics from the committed offsets, until the other side is gone.
fn read_batches(
    brokers: &str,
    progress: &OutProgress,
    clock: &dyn Clock,
    batches: &mpsc::Sender<WindowRows>,
) -> Result<(), SinkError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Required by the client, never used: offsets live in PostgreSQL, with the rows they came from.
        .set("group.id", "clicktally-window-writer")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for topic in [WINDOW_COUNTS, LATE_CLICKS] {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_DEADLINE)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let committed = progress.get(&(topic, partition.id()));
            let from = committed.map_or(Offset::Beginning, |next| Offset::Offset(*next));
            assignment.add_partition_offset(topic, partition.id(), from)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut rows = WindowRows::default();
    let mut first_read_at = clock.monotonic();
    while !batches.is_closed() {
        let record = consumer.poll(POLL);
        let is_quiet = record.is_none();
        if let Some(record) = record {
            let record = record?;
            if rows.is_empty() {
                first_read_at = clock.monotonic();
            }
            rows.take(record.topic(), record.partition(), record.offset(), record.payload().unwrap_or_default());
        }
        if rows.are_due(is_quiet, clock.monotonic().saturating_sub(first_read_at)) {
            if rows.undecodable > 0 {
                tracing::error!(
                    records = rows.undecodable,
                    "undecodable records in the outbound topics were passed over"
                );
            }
            if batches.blocking_send(std::mem::take(&mut rows)).is_err() {
                break;
            }
        }
    }
    Ok(())
}
